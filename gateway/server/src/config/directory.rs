//! The names in a directory for tenants: a folder for each, with a file that says what it is, and its modules.

/// What says what a tenant is, in its folder.
pub(crate) const TENANT_FILE: &str = "tenant.yaml";

/// Whether a tenant in the directory may have this name: it is a folder's, and part of a path.
pub(crate) fn is_tenant_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
}

/// Whether a module, or its signature, may have this file name.
pub(crate) fn is_module_name(name: &str) -> bool {
    name.len() <= 128
        && (name.ends_with(".wasm") || name.ends_with(".wasm.sig"))
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_parts_of_paths() {
        for name in ["acme", "a1", "0-b_c.d"] {
            assert!(is_tenant_name(name), "{name}");
        }
        for name in ["", ".", "..", ".a", "-a", "Acme", "a/b", "a b", "é", &"a".repeat(64)] {
            assert!(!is_tenant_name(name), "{name}");
        }
        assert!(["geo-1.2.wasm", "A.wasm", "geo.wasm.sig"].into_iter().all(is_module_name));
        for name in [".wasm", "geo", "geo.sig", "../geo.wasm", "a/geo.wasm", "tenant.yaml", "-a.wasm"] {
            assert!(!is_module_name(name), "{name}");
        }
    }
}
