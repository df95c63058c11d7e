//! JSON Pointer (RFC 6901), as far as policies read it alike.

/// The name that a reference token stands for: `~1` is a slash, `~0` a tilde (§4); nothing where a tilde is neither.
#[must_use]
pub fn unescaped(token: &str) -> Option<String> {
    let mut text = String::with_capacity(token.len());
    let mut rest = token.chars();
    while let Some(char) = rest.next() {
        match char {
            '~' => text.push(match rest.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            }),
            _ => text.push(char),
        }
    }
    Some(text)
}
