//! A module's outline: everything but its code.

use portcullis_abi::{MARKER_PREFIX, Version};
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};

use crate::manifest::{Manifest, SECTION};

/// A module that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It does not begin as wasm does.
    #[error("it is not a WebAssembly module; give the .wasm file that the plugin's build makes")]
    NotWasm,
    /// It is malformed.
    #[error("it is malformed: {0}")]
    Malformed(String),
    /// Its manifest is.
    #[error("its manifest cannot be read: {0}; build it with the SDK and the tools of one version")]
    Manifest(String),
}

impl From<wasmparser::BinaryReaderError> for Unreadable {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// A function that a module imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// `env` or a version of WASI.
    pub module: String,
    /// The function.
    pub name: String,
}

/// What stands in a module.
#[derive(Clone, Debug, Default)]
pub struct Outline {
    /// The ABI it speaks, by its marker export.
    pub abi: Option<Version>,
    /// What it imports.
    pub imports: Vec<Import>,
    /// The functions it exports.
    pub exports: Vec<String>,
    /// What it says of itself, if it was built with the SDK.
    pub manifest: Option<Manifest>,
    /// Pages of memory that it begins with, and the most it will have.
    pub memory_pages: (u64, Option<u64>),
    /// Bytes of code.
    pub code_bytes: usize,
    /// Bytes of data.
    pub data_bytes: usize,
    /// Bytes of names and other custom sections.
    pub custom_bytes: usize,
}

impl Outline {
    /// Reads a module.
    ///
    /// # Errors
    /// When it is not one.
    pub fn of(wasm: &[u8]) -> Result<Self, Unreadable> {
        if !wasm.starts_with(b"\0asm") {
            return Err(Unreadable::NotWasm);
        }
        let mut outline = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            outline.take(payload?)?;
        }
        Ok(outline)
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "what other sections there are is of no interest here")]
    fn take(&mut self, payload: Payload<'_>) -> Result<(), Unreadable> {
        match payload {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    if let TypeRef::Func(_) = import.ty {
                        let (module, name) = (import.module.to_owned(), import.name.to_owned());
                        self.imports.push(Import { module, name });
                    }
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    if export.kind == ExternalKind::Func {
                        self.exports.push(export.name.to_owned());
                    }
                }
                let marker = self.exports.iter().find(|name| name.starts_with(MARKER_PREFIX));
                self.abi = marker.and_then(|marker| Version::from_marker(marker));
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    let memory = memory?;
                    self.memory_pages = (memory.initial, memory.maximum);
                }
            }
            Payload::CodeSectionStart { size, .. } => self.code_bytes = size as usize,
            Payload::DataSection(section) => self.data_bytes = section.range().len(),
            Payload::CustomSection(section) => {
                self.custom_bytes += section.data().len();
                if section.name() == SECTION {
                    let manifest = serde_json::from_slice(section.data());
                    self.manifest = Some(manifest.map_err(|error| Unreadable::Manifest(error.to_string()))?);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
