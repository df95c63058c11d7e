//! What a module may be before anything looks at it closely: its bytes and its functions, counted without parsing more.

use crate::module::LoadError;

/// The most bytes of a module. Go's are up to 10 MB.
pub const MODULE_BYTES: usize = 32 << 20;
/// The most functions of a module; each costs memory before it is compiled. Large ones of Go or C++ have some 20,000.
pub const MODULE_FUNCTIONS: u32 = 50_000;

/// Checks them. What is malformed is left to the compiler, whose words for it are better.
pub(crate) fn check(wasm: &[u8]) -> Result<(), LoadError> {
    if wasm.len() > MODULE_BYTES {
        return Err(LoadError::TooLarge { bytes: wasm.len() });
    }
    match functions(wasm) {
        Some(functions) if functions > MODULE_FUNCTIONS => Err(LoadError::TooManyFunctions(functions)),
        _ => Ok(()),
    }
}

/// How many functions the module says it has.
fn functions(wasm: &[u8]) -> Option<u32> {
    const FUNCTION_SECTION: u8 = 3;
    let mut rest = wasm.get(8..)?;
    loop {
        let (id, after) = rest.split_first()?;
        let (len, after) = number(after)?;
        let (section, after) = after.split_at_checked(len as usize)?;
        if *id == FUNCTION_SECTION {
            return number(section).map(|(count, _)| count);
        }
        rest = after;
    }
}

/// A number in wasm's variable length, and what is behind it.
fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut number = 0_u32;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        number |= u32::from(byte & 0x7f).checked_shl(u32::try_from(index).ok()? * 7)?;
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_counted_wherever_the_section_is() {
        let head = b"\0asm\x01\0\0\0";
        let module = |sections: &[u8]| [&head[..], sections].concat();
        assert_eq!(functions(&module(b"\x03\x02\x01\x00")), Some(1));
        assert_eq!(functions(&module(b"\x00\x03abc\x01\x01\x00\x03\x03\xd0\x86\x03")), Some(50_000));
        for malformed in [&b""[..], b"\x03", b"\x03\xff\xff\xff\xff\xff\xff", b"\x01\x09a", b"\x03\x00"] {
            assert_eq!(functions(&module(malformed)), None, "{malformed:?}");
        }
        assert!(check(&module(b"\x03\x03\xd0\x86\x03")).is_ok());
        let many = check(&module(b"\x03\x03\xd1\x86\x03")).unwrap_err();
        assert!(many.to_string().starts_with("it has 50001 functions"), "{many}");
        let large = check(&vec![0; MODULE_BYTES + 1]).unwrap_err();
        assert!(large.to_string().starts_with("it is 33554433 bytes large"), "{large}");
    }
}
