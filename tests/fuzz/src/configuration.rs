//! A configuration is read or refused, and a refusal can be shown.

/// Whatever the text, the configuration is read or refused with a reason that can be shown.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    if text.contains("dev") {
        // A device named as a file can be read for ever.
        return;
    }
    let problems = match portcullis::config::from_text(std::path::Path::new("fuzz.yaml"), text) {
        Ok((_, problems)) => problems,
        Err(problems) => {
            assert!(!problems.is_empty());
            problems
        }
    };
    portcullis::cli::print(&problems, &mut Vec::new()).unwrap();
}
