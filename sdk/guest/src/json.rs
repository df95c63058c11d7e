//! Strings of JSON, for replies of filters that need no more of it.

/// Appends `text` as a string of JSON.
pub(crate) fn quote(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            control if control < ' ' => {
                out.push_str("\\u00");
                for nibble in [u32::from(control) >> 4, u32::from(control) & 15] {
                    out.extend(char::from_digit(nibble, 16));
                }
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_string_of_json_is_read_back_as_it_was() {
        let text = "say \"hi\" \\ \n \u{1f} \u{0} é";
        let mut quoted = String::new();
        super::quote(text, &mut quoted);
        assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), text);
    }
}
