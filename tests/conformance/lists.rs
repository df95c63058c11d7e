//! The gateway's lists against the ABI document's: nothing is missing, and everything has the document's type.

use std::fmt::Write as _;

use portcullis::cli;
use portcullis_tests::abi::{Function, Parameter, document};
use portcullis_vm::{Engine, EngineOptions};

/// The names that `portcullis abi` prints in the paragraph that begins so.
fn printed(title: &str) -> Vec<String> {
    let text = cli::abi();
    let paragraph = text.split("\n\n").find_map(|paragraph| paragraph.trim_end().strip_prefix(title)).unwrap();
    paragraph.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The document's names of these sections.
fn listed(sections: &[&str]) -> Vec<String> {
    let all = document();
    let of = |section: &str| -> Vec<String> {
        all.iter().filter(|f| f.section == section).map(|f| f.name.to_owned()).collect()
    };
    sections.iter().flat_map(|section| of(section)).collect()
}

#[test]
fn every_function_of_the_document_is_there_in_its_order_and_no_other() {
    assert_eq!(
        printed("Imports from `env`: "),
        listed(&["6.1", "6.2", "6.3", "6.4", "6.5", "6.6", "6.7", "1.2", "2.3"])
    );
    assert_eq!(printed("From WASI: "), listed(&["5"]));
    // Those of our own say so in their names.
    let foreign: Vec<String> = printed("Foreign functions: ");
    let envoys: Vec<&String> = foreign.iter().filter(|name| !name.starts_with("portcullis_")).collect();
    assert_eq!(envoys, listed(&["10"]).iter().collect::<Vec<_>>());
}

/// What the document says of those that are not made: METADATA frames are Envoy's alone ("never call"), the C++ host looks
/// `proxy_validate_configuration` up and makes no use of it, and `proxy_on_foreign_function` answers functions that a host defines
/// for itself: of section 10 none answers later.
const NEVER_MADE: [&str; 4] = [
    "proxy_validate_configuration",
    "proxy_on_request_metadata",
    "proxy_on_response_metadata",
    "proxy_on_foreign_function",
];

#[test]
fn every_callback_of_the_document_is_made_but_those_that_no_host_makes() {
    let mut made: Vec<String> = printed("Callbacks: ");
    made.retain(|name| name.starts_with("proxy_on_") && name != "proxy_on_memory_allocate");
    let mut want = listed(&["7.1"]);
    want.retain(|name| !NEVER_MADE.contains(&&**name));
    made.sort();
    want.sort();
    assert_eq!(made, want);
}

/// An export of the document's type.
fn export(function: &Function) -> String {
    let mut text = format!("(func (export \"{}\") (param", function.name);
    function.parameters.iter().for_each(|_| text.push_str(" i32"));
    write!(text, "){})", if function.returns { " (result i32) (i32.const 0)" } else { "" }).unwrap();
    text
}

#[test]
fn everything_has_the_type_that_the_document_says() {
    let (imported, named): (Vec<_>, Vec<_>) = document().into_iter().partition(Function::is_imported);
    let imports: String = imported.iter().map(Function::import).collect();
    let callbacks: Vec<&Function> = named.iter().filter(|function| function.section == "7.1").collect();
    let engine = Engine::new(EngineOptions { max_vms: 1, ..EngineOptions::default() }).unwrap();
    let load = |imports: &str, exports: &str| {
        let text = format!(
            r#"(module {imports} (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
            (func (export "malloc") (param i32) (result i32) (i32.const 0)) {exports})"#
        );
        engine.load("lists", &wat::parse_str(text).unwrap()).map(|_| ())
    };
    let exports: String = callbacks.iter().map(|function| export(function)).collect();
    load(&imports, &exports).unwrap();
    // One parameter more is another function.
    let longer = |function: &Function| {
        let parameters = [&function.parameters[..], &[Parameter::Number; 2]].concat();
        Function { parameters, ..function.clone() }
    };
    for function in &imported {
        assert!(load(&longer(function).import(), "").is_err(), "{} takes whatever it is given", function.name);
    }
    for function in callbacks.into_iter().filter(|function| !NEVER_MADE.contains(&function.name)) {
        assert!(load("", &export(&longer(function))).is_err(), "{} is called whatever its type", function.name);
    }
}
