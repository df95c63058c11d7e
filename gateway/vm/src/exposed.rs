//! A module made ready to be copied: what it keeps from its host, and a copy needs, is exported under names of the gateway's.
//!
//! A copy of a VM ([`crate::image`]) has the original's memory and the original's mutable globals. Compilers do not export those, so
//! exports are added; and the start function becomes one, since an instance is to be made without running it. The rest of the module
//! stays as it is, byte by byte. What no copy could have is refused: changed tables, and globals that refer to functions.

use std::ops::Range;

use wasmparser::{FunctionBody, Operator, Parser, Payload, TypeRef, ValType};

use crate::module::LoadError;

/// How the names begin that the gateway adds.
const PREFIX: &str = "portcullis:";
/// How the names begin under which mutable globals are exported; their number follows.
pub(crate) const GLOBAL: &str = "portcullis:global:";
/// Under which the start function is.
pub(crate) const START: &str = "portcullis:start";

/// The binary format's numbers for what is exported.
const FUNCTION: u8 = 0;
const GLOBAL_KIND: u8 = 3;

/// What is found in a module.
#[derive(Default)]
struct Found {
    imported_globals: u32,
    mutable: Vec<u32>,
    start: Option<(u32, Range<usize>)>,
    exports: Option<(u32, Range<usize>)>,
}

/// The module with these exports. One that is malformed comes back as it is: the compiler's words for it are better.
///
/// # Errors
/// When a copy could not be made like the original.
pub(crate) fn expose(wasm: &[u8]) -> Result<Vec<u8>, LoadError> {
    let mut found = Found::default();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(Stop::from).and_then(|payload| found.take(payload)) {
            Ok(()) => {}
            Err(Stop::Malformed) => return Ok(wasm.to_vec()),
            Err(Stop::Uncopyable(what)) => return Err(LoadError::Uncopyable { what }),
        }
    }
    Ok(found.written(wasm).unwrap_or_else(|| wasm.to_vec()))
}

enum Stop {
    Malformed,
    Uncopyable(&'static str),
}

impl From<wasmparser::BinaryReaderError> for Stop {
    fn from(_: wasmparser::BinaryReaderError) -> Self {
        Self::Malformed
    }
}

impl Found {
    #[allow(clippy::wildcard_enum_match_arm, reason = "what other sections there are is of no interest here")]
    fn take(&mut self, payload: Payload<'_>) -> Result<(), Stop> {
        match payload {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    self.imported_globals += u32::from(matches!(import?.ty, TypeRef::Global(_)));
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    if memory?.shared {
                        return Err(Stop::Uncopyable("its memory is shared"));
                    }
                }
            }
            Payload::GlobalSection(section) => {
                for (index, global) in (self.imported_globals..).zip(section) {
                    let of = global?.ty;
                    match of.content_type {
                        _ if !of.mutable => {}
                        ValType::Ref(_) => return Err(Stop::Uncopyable("one of its globals refers to a function")),
                        ValType::I32 | ValType::I64 | ValType::F32 | ValType::F64 | ValType::V128 => {
                            self.mutable.push(index);
                        }
                    }
                }
            }
            Payload::ExportSection(section) => {
                self.exports = Some((section.count(), section.range()));
                for export in section {
                    if export?.name.starts_with(PREFIX) {
                        return Err(Stop::Uncopyable("it exports names that are the gateway's own"));
                    }
                }
            }
            Payload::StartSection { func, range } => self.start = Some((func, range)),
            Payload::CodeSectionEntry(body) => check(&body)?,
            _ => {}
        }
        Ok(())
    }

    /// The module with the exports added, and without its start section. Nothing if a section lies outside of it.
    fn written(&self, wasm: &[u8]) -> Option<Vec<u8>> {
        let (count, range) = self.exports.as_ref()?;
        let old = wasm.get(range.clone())?;
        let entries = old.get(number_len(old)..)?;
        let added: Vec<(String, u8, u32)> = (self.mutable.iter())
            .map(|index| (format!("{GLOBAL}{index}"), GLOBAL_KIND, *index))
            .chain(self.start.iter().map(|(func, _)| (START.to_owned(), FUNCTION, *func)))
            .collect();
        let mut exports = Vec::with_capacity(old.len() + added.len() * 32);
        unsigned(count + u32::try_from(added.len()).ok()?, &mut exports);
        exports.extend_from_slice(entries);
        for (name, kind, index) in &added {
            unsigned(u32::try_from(name.len()).ok()?, &mut exports);
            exports.extend_from_slice(name.as_bytes());
            exports.push(*kind);
            unsigned(*index, &mut exports);
        }
        let mut out = Vec::with_capacity(wasm.len() + exports.len());
        out.extend_from_slice(wasm.get(..len_start(wasm, range.start)?)?);
        unsigned(u32::try_from(exports.len()).ok()?, &mut out);
        out.append(&mut exports);
        match &self.start {
            None => out.extend_from_slice(wasm.get(range.end..)?),
            Some((_, start)) => {
                // A section is a number, its length, and what is in it.
                let begin = len_start(wasm, start.start)?.checked_sub(1)?;
                out.extend_from_slice(wasm.get(range.end..begin)?);
                out.extend_from_slice(wasm.get(start.end..)?);
            }
        }
        Some(out)
    }
}

/// Refuses what changes a table: an instance's tables cannot be read and written as its memory can.
fn check(body: &FunctionBody<'_>) -> Result<(), Stop> {
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        let changes = matches!(
            operators.read()?,
            Operator::TableSet { .. }
                | Operator::TableGrow { .. }
                | Operator::TableFill { .. }
                | Operator::TableCopy { .. }
                | Operator::TableInit { .. }
        );
        if changes {
            return Err(Stop::Uncopyable("it changes a table while it runs"));
        }
    }
    Ok(())
}

/// Where the length of the section begins whose contents begin at `contents`: all of a number's bytes but the last have the high bit.
fn len_start(wasm: &[u8], contents: usize) -> Option<usize> {
    let before = wasm.get(..contents)?;
    contents.checked_sub(1 + before.iter().rev().skip(1).take_while(|byte| **byte & 0x80 != 0).count())
}

/// How many bytes the number at the front takes.
fn number_len(bytes: &[u8]) -> usize {
    1 + bytes.iter().take_while(|byte| **byte & 0x80 != 0).count()
}

/// LEB128, as the binary format has numbers.
fn unsigned(mut number: u32, out: &mut Vec<u8>) {
    loop {
        let low = number.to_le_bytes()[0] & 0x7f;
        number >>= 7;
        if number == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposed(text: &str) -> Result<String, String> {
        let wasm = wat::parse_str(text).unwrap();
        let exposed = expose(&wasm).map_err(|error| error.to_string())?;
        let engine = wasmtime::Engine::default();
        let module = wasmtime::Module::new(&engine, &exposed).map_err(|error| format!("{error:?}"))?;
        let started = wasmparser::Parser::new(0)
            .parse_all(&exposed)
            .any(|payload| matches!(payload, Ok(Payload::StartSection { .. })));
        assert!(!started, "an instance is made without running anything");
        let names: Vec<&str> = module.exports().map(|export| export.name()).collect();
        Ok(names.join(" "))
    }

    #[test]
    fn mutable_globals_and_the_start_function_are_exported() {
        let long = "x".repeat(200);
        for (module, want) in [
            ("(memory (export \"m\") 1)", "m"),
            (
                "(global i32 (i32.const 1)) (global (mut i64) (i64.const 1)) (memory (export \"m\") 1)",
                "m portcullis:global:1",
            ),
            ("(func (export \"f\")) (start 0)", "f portcullis:start"),
            (
                "(global (mut f32) (f32.const 1)) (global (mut v128) (v128.const i64x2 1 2)) (func $f) \
                 (export \"f\" (func $f)) (start $f) (data \"tail\")",
                "f portcullis:global:0 portcullis:global:1 portcullis:start",
            ),
            (
                &format!("(global (mut i32) (i32.const 1)) (func (export \"{long}\"))"),
                &format!("{long} portcullis:global:0"),
            ),
        ] {
            assert_eq!(exposed(&format!("(module {module})")).as_deref(), Ok(want), "{module}");
        }
    }

    #[test]
    fn what_no_copy_could_have_is_refused() {
        let table = "(table 1 funcref) (elem $e func 0)";
        for (module, want) in [
            ("(memory (export \"m\") 1 1 shared)".to_owned(), "its memory is shared"),
            ("(global (mut funcref) (ref.null func))".to_owned(), "one of its globals refers to a function"),
            (format!("{table} (func (table.set (i32.const 0) (ref.null func)))"), "it changes a table while it runs"),
            (
                format!("{table} (func (table.init $e (i32.const 0) (i32.const 0) (i32.const 0)))"),
                "it changes a table while it runs",
            ),
        ] {
            let said = exposed(&format!("(module {module})")).unwrap_err();
            assert!(said.contains(want), "{module}: {said}");
        }
    }

    #[test]
    fn what_is_malformed_is_left_to_the_compiler() {
        let wasm = wat::parse_str("(module (global (mut i32) (i32.const 1)) (func (export \"f\")) (start 0))").unwrap();
        for end in 8..wasm.len() {
            let cut = wasm.get(..end).unwrap();
            assert!(expose(cut).is_ok(), "{end}");
        }
    }
}
