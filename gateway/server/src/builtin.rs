//! The plugins that come in the binary.
//!
//! `cargo xtask plugins` builds them and `build.rs` puts in those that it finds; what they do is left to them.

mod found {
    //! Written by `build.rs`.
    include!(concat!(env!("OUT_DIR"), "/builtin.rs"));
}

/// A plugin that the gateway knows by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// Its module is in this binary.
    Present(&'static [u8]),
    /// This binary was built before the module was.
    Absent,
}

/// The names that may follow `builtin:`.
#[must_use]
pub fn names() -> Vec<&'static str> {
    found::BUILTINS.iter().map(|(name, _)| *name).collect()
}

/// The plugin of this name.
#[must_use]
pub fn find(name: &str) -> Option<Builtin> {
    let (_, code) = found::BUILTINS.iter().find(|(known, _)| *known == name)?;
    Some(code.map_or(Builtin::Absent, Builtin::Present))
}

/// The module that a tenant of the demo brings along.
#[must_use]
pub fn demo_module() -> Option<&'static [u8]> {
    found::DEMO
}
