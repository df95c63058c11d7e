//! Programs: compiled once, run on documents.

use jaq_core::box_iter::box_once;
use jaq_core::load::{self, Arena, File, Loader, parse};
use jaq_core::native::{Fun, run, v};
use jaq_core::{Compiler, Ctx, Error, Exn, Filter, Vars, compile, unwrap_valr};
use jaq_json::Val;

use crate::steps::{self, Data};

/// What programs know beside their input.
const GLOBALS: [&str; 2] = ["$request", "$response"];
/// A name for the program among the definitions.
const MAIN: &str = "portcullis_main";
/// What filters cannot do here: there is no process of their own, and nobody reads its output.
const ABSENT: [(&str, usize); 3] = [("halt", 1), ("env", 0), ("stderr_empty", 0)];
/// The deepest nesting of a document, which the interpreter follows by recursion.
const MAX_DEPTH: usize = 100;

/// A program.
pub(crate) struct Program {
    filter: Filter<Data>,
    max_steps: u64,
}

/// Why a program has no result.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The document is none, or nested too deeply.
    Malformed,
    /// It takes too many steps.
    Steps,
    /// The program says so, or cannot go on.
    Failed(String),
    /// Its result is longer than it may be.
    TooLarge,
}

impl Program {
    /// # Errors
    /// What is wrong with the program, and where.
    pub(crate) fn compile(code: &str, max_steps: u64) -> Result<Self, String> {
        let arena = Arena::default();
        // As written, for errors that say where.
        let written = Loader::new(definitions()).load(&arena, File { code, path: () });
        let written = written.map_err(|errors| unloadable(code, &errors))?;
        compiler().compile(written).map_err(|errors| undefined(code, &errors))?;
        // And as it is run.
        let term =
            load::parse(code, |parser| parser.term()).ok_or("it has to be a filter, without `module` or `import`")?;
        let main = parse::Def { name: MAIN, args: GLOBALS.into(), body: term };
        let counting = definitions().chain([main]).map(steps::definition);
        let code = format!("{MAIN}({}; {})", GLOBALS[0], GLOBALS[1]);
        let run = Loader::new(counting).load(&arena, File { code: &code, path: () });
        let run = run.map_err(|errors| unloadable(&code, &errors))?;
        let filter = compiler().compile(run).map_err(|errors| undefined(&code, &errors))?;
        Ok(Self { filter, max_steps })
    }

    /// What it makes of a document, with these values of its variables: one document.
    pub(crate) fn run(&self, document: &[u8], globals: [Val; 2], max_bytes: usize) -> Result<Vec<u8>, Failure> {
        // The interpreter's own reader takes more than JSON.
        let is_json = is_shallow(document) && serde_json::from_slice::<serde::de::IgnoredAny>(document).is_ok();
        let input = jaq_json::read::parse_single(document).ok().filter(|_| is_json).ok_or(Failure::Malformed)?;
        steps::allow(self.max_steps);
        let context = Ctx::<Data>::new(&self.filter.lut, Vars::new(globals));
        let mut results = self.filter.id.run((context, input)).map(unwrap_valr);
        let failed = |error: Error<Val>| {
            if steps::are_used_up() { Failure::Steps } else { Failure::Failed(error.to_string()) }
        };
        let result = match (results.next(), results.next()) {
            (Some(result), None) => result.map_err(failed)?,
            (Some(Err(error)), Some(_)) | (Some(Ok(_)), Some(Err(error))) => return Err(failed(error)),
            (Some(Ok(_)), Some(Ok(_))) => return Err(Failure::Failed("it gives more than one result".to_owned())),
            (None, _) => return Err(Failure::Failed("it gives no result".to_owned())),
        };
        let written = result.to_string().into_bytes();
        if written.len() > max_bytes {
            return Err(Failure::TooLarge);
        }
        // Infinity, not-a-number and names that are no texts have no form in JSON.
        match serde_json::from_slice::<serde::de::IgnoredAny>(&written) {
            Ok(_) => Ok(written),
            Err(_) => Err(Failure::Failed("its result is no JSON".to_owned())),
        }
    }
}

/// What comes with jq, to stand beside a program's own.
fn definitions<'s>() -> impl Iterator<Item = parse::Def<&'s str>> {
    let all = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    all.map(|definition: parse::Def<&'static str>| -> parse::Def<&'s str> { definition })
}

fn compiler<'s>() -> Compiler<&'s str, Data> {
    let all = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
    let there = all.filter(|(name, args, _)| !ABSENT.contains(&(*name, args.len())));
    let funs = there.chain(ABSENT.map(absent)).chain(steps::natives());
    Compiler::default().with_funs(funs).with_global_vars(GLOBALS)
}

fn absent((name, arity): (&'static str, usize)) -> Fun<Data> {
    run::<Data>((name, v(arity), |_| box_once(Err(Exn::from(Error::str("this filter is not there in a gateway"))))))
}

/// Whether nothing is nested deeper than may be.
fn is_shallow(json: &[u8]) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return false;
        }
    }
    true
}

/// Where in a program a part of it stands, for people.
fn place(code: &str, part: &str) -> String {
    let before = code.get(..load::span(code, part).start).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}

fn unloadable(code: &str, errors: &load::Errors<&str, ()>) -> String {
    let Some((_, error)) = errors.first() else { return "it cannot be read".to_owned() };
    match error {
        load::Error::Io(errors) => {
            let names: Vec<&str> = errors.iter().map(|(name, _)| *name).collect();
            format!("it imports {}, and there are no modules", names.join(", "))
        }
        load::Error::Lex(errors) => errors.first().map_or_else(String::new, |(expected, found)| {
            format!("{}: {} is expected here", place(code, found), expected.as_str())
        }),
        load::Error::Parse(errors) => errors.first().map_or_else(String::new, |(expected, found)| {
            let found_ = if found.is_empty() { "the end".to_owned() } else { format!("`{found}`") };
            format!("{}: {} is expected, and here is {found_}", place(code, found), expected.as_str())
        }),
    }
}

fn undefined(code: &str, errors: &compile::Errors<&str, ()>) -> String {
    let first = errors.iter().flat_map(|(_, errors)| errors).next();
    first.map_or_else(String::new, |(name, what)| {
        let arity = if let compile::Undefined::Filter(arity @ 1..) = what {
            format!(" of {arity} arguments")
        } else {
            String::new()
        };
        format!("{}: there is no {} `{name}`{arity}", place(code, name), what.as_str())
    })
}
