//! Wasm function types as this crate states them: once, as Rust types.
//!
//! The callback and hostcall tables derive from them both what wasmtime is given and what a module is checked against.

use std::fmt;

use wasmtime::{FuncType, ValType};

/// A wasm number type the ABI uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 32 bits: addresses, lengths, ids, statuses.
    I32,
    /// 64 bits: metric values, file offsets.
    I64,
}

impl Kind {
    fn is(self, found: &ValType) -> bool {
        match self {
            Self::I32 => found.is_i32(),
            Self::I64 => found.is_i64(),
        }
    }
}

/// The Rust types that stand for a wasm number.
pub(crate) trait Number {
    /// Its wasm type.
    const KIND: Kind;
}

impl Number for u32 {
    const KIND: Kind = Kind::I32;
}

impl Number for i64 {
    const KIND: Kind = Kind::I64;
}

/// A function's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    /// Its parameters.
    pub(crate) params: &'static [Kind],
    /// Its result, if it has one.
    pub(crate) result: Option<Kind>,
}

impl Signature {
    /// Whether a function of this type was found.
    pub(crate) fn is(&self, found: &FuncType) -> bool {
        found.params().len() == self.params.len()
            && found.params().zip(self.params).all(|(found, kind)| kind.is(&found))
            && found.results().len() == usize::from(self.result.is_some())
            && found.results().zip(self.result).all(|(found, kind)| kind.is(&found))
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |kind: &Kind| match kind {
            Kind::I32 => "i32",
            Kind::I64 => "i64",
        };
        write(f, self.params.iter().map(word), self.result.as_ref().map(word).into_iter())
    }
}

/// A type found in a module, written as [`Signature`] is.
pub(crate) fn shown(found: &FuncType) -> String {
    struct Found<'a>(&'a FuncType);
    impl fmt::Display for Found<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write(f, self.0.params(), self.0.results())
        }
    }
    Found(found).to_string()
}

fn write<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    params: impl Iterator<Item = T>,
    results: impl Iterator<Item = T>,
) -> fmt::Result {
    let list = |f: &mut fmt::Formatter<'_>, items: &mut dyn Iterator<Item = T>| {
        items.enumerate().try_for_each(|(index, item)| write!(f, "{}{item}", if index > 0 { ", " } else { "" }))
    };
    let (mut params, mut results) = (params, results);
    f.write_str("(")?;
    list(f, &mut params)?;
    f.write_str(") -> (")?;
    list(f, &mut results)?;
    f.write_str(")")
}

/// The parameters of a callback, as a tuple of Rust types.
pub(crate) trait Params {
    /// Their wasm types.
    const KINDS: &'static [Kind];
}

macro_rules! params {
    ($(($($ty:ident),*))*) => {
        $(impl Params for ($($ty,)*) {
            const KINDS: &'static [Kind] = &[$(<$ty as Number>::KIND),*];
        })*
    };
}

params! { () (u32) (u32, u32) (u32, u32, u32) (u32, u32, u32, u32, u32) }

/// What a callback returns.
pub(crate) trait Returned {
    /// Its wasm type.
    const KIND: Option<Kind>;
}

impl Returned for () {
    const KIND: Option<Kind> = None;
}

impl Returned for u32 {
    const KIND: Option<Kind> = Some(Kind::I32);
}
