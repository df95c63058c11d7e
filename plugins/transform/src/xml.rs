//! XML as JSON, read only.
//!
//! An element is an object: its attributes as `@name`, its elements by their names, lists where there are several, its text as
//! `#text`. One with nothing but text is that text, one with nothing at all is null. The document is an object with its root.
//! Names keep their prefixes, and namespaces are not resolved.
//!
//! A document with a DOCTYPE is refused, and so is every entity but the five that XML has by itself: so nothing is fetched and
//! nothing multiplies. Elements may be nested [`MAX_DEPTH`] deep.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::document;

/// As deep as JSON may be.
const MAX_DEPTH: usize = 100;

/// The document is not well formed, or has what is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotXml;

type Read<T> = Result<T, NotXml>;

pub(crate) fn read(body: &[u8]) -> Read<Value> {
    let text = std::str::from_utf8(body).map_err(|_| NotXml)?;
    let mut reader = Reader { rest: text.strip_prefix('\u{feff}').unwrap_or(text) };
    // The declaration, of which only the encoding could matter, and that has shown itself.
    reader.skip_around()?;
    reader.expect("<")?;
    let (name, root) = reader.element(0)?;
    reader.skip_around()?;
    if reader.rest.is_empty() { Ok(Value::Object(Map::from_iter([(name.to_owned(), root)]))) } else { Err(NotXml) }
}

struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    fn take(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, text: &str) -> Read<()> {
        if self.take(text) { Ok(()) } else { Err(NotXml) }
    }

    fn until(&mut self, end: &str) -> Read<&'t str> {
        let (before, rest) = self.rest.split_once(end).ok_or(NotXml)?;
        self.rest = rest;
        Ok(before)
    }

    fn blanks(&mut self) -> bool {
        let rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        let any = rest.len() < self.rest.len();
        self.rest = rest;
        any
    }

    /// Blanks, comments and processing instructions, as they may stand around the root.
    fn skip_around(&mut self) -> Read<()> {
        loop {
            self.blanks();
            if !self.aside()? {
                return Ok(());
            }
        }
    }

    fn aside(&mut self) -> Read<bool> {
        if self.take("<!--") {
            return self.until("-->").map(|_| true);
        }
        if self.take("<?") {
            return self.until("?>").map(|_| true);
        }
        Ok(false)
    }

    fn name(&mut self) -> Read<&'t str> {
        let starts = |char: char| char.is_alphabetic() || char == '_' || char == ':';
        let goes_on = |char: char| starts(char) || char.is_alphanumeric() || "-.\u{b7}".contains(char);
        let end = self.rest.find(|char| !goes_on(char)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        if name.starts_with(starts) { Ok(name) } else { Err(NotXml) }
    }

    /// An element whose `<` has been read.
    fn element(&mut self, depth: usize) -> Read<(&'t str, Value)> {
        if depth >= MAX_DEPTH {
            return Err(NotXml);
        }
        let name = self.name()?;
        let mut fields = Map::new();
        loop {
            let parted = self.blanks();
            if self.take("/>") {
                return Ok((name, whole(fields, String::new())));
            }
            if self.take(">") {
                break;
            }
            let attribute = format!("@{}", self.name()?);
            self.blanks();
            self.expect("=")?;
            self.blanks();
            let quote = if self.take("'") { "'" } else { self.expect("\"").map(|()| "\"")? };
            let value = self.until(quote)?;
            if !parted || value.contains('<') || fields.contains_key(&attribute) {
                return Err(NotXml);
            }
            fields.insert(attribute, Value::String(unescaped(value)?.replace(['\t', '\n', '\r'], " ")));
        }
        let text = self.content(depth, &mut fields)?;
        if self.name()? != name {
            return Err(NotXml);
        }
        self.blanks();
        self.expect(">")?;
        Ok((name, whole(fields, text)))
    }

    /// What is in an element, up to the `</` of its end; its text.
    fn content(&mut self, depth: usize, fields: &mut Map<String, Value>) -> Read<String> {
        let mut text = String::new();
        loop {
            let at = self.rest.find('<').ok_or(NotXml)?;
            let (plain, rest) = self.rest.split_at(at);
            if plain.contains("]]>") {
                return Err(NotXml);
            }
            text.push_str(&unescaped(plain)?);
            self.rest = rest;
            if self.take("</") {
                return Ok(text);
            }
            if self.aside()? {
                continue;
            }
            if self.take("<![CDATA[") {
                text.push_str(self.until("]]>")?);
                continue;
            }
            self.expect("<")?;
            let (name, value) = self.element(depth + 1)?;
            document::add(fields, name.to_owned(), value);
        }
    }
}

fn whole(mut fields: Map<String, Value>, text: String) -> Value {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    if fields.is_empty() {
        return if text.is_empty() { Value::Null } else { Value::String(text) };
    }
    // Blanks between elements lay them out.
    if !text.trim().is_empty() {
        fields.insert("#text".to_owned(), Value::String(text));
    }
    Value::Object(fields)
}

fn unescaped(text: &str) -> Read<Cow<'_, str>> {
    if text.contains(|char: char| char.is_ascii_control() && !matches!(char, '\t' | '\n' | '\r')) {
        return Err(NotXml);
    }
    let Some((plain, mut rest)) = text.split_once('&') else { return Ok(Cow::Borrowed(text)) };
    let mut made = plain.to_owned();
    loop {
        let (entity, after) = rest.split_once(';').ok_or(NotXml)?;
        made.push(match entity {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "apos" => '\'',
            "quot" => '"',
            _ => numbered(entity).ok_or(NotXml)?,
        });
        let Some((plain, next)) = after.split_once('&') else {
            made.push_str(after);
            return Ok(Cow::Owned(made));
        };
        made.push_str(plain);
        rest = next;
    }
}

/// The character of `#233` or `#xe9`, if XML has it (XML 1.0 §2.2).
fn numbered(entity: &str) -> Option<char> {
    let digits = entity.strip_prefix('#')?;
    let (digits, radix) = digits.strip_prefix('x').map_or((digits, 10), |digits| (digits, 16));
    let code = u32::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'))?;
    char::from_u32(code).filter(|char| *char >= ' ' || matches!(char, '\t' | '\n' | '\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_objects() {
        for (xml, want) in [
            ("<a/>", r#"{"a":null}"#),
            ("<?xml version='1.0' encoding='utf-8'?>\n<!-- c --><a >x</a >\n<?p?>", r#"{"a":"x"}"#),
            ("<a b='1' c=\"&lt;&#233;&#xE9;\n\"/>", r#"{"a":{"@b":"1","@c":"<éé "}}"#),
            ("<a><b>1</b><b/><c>3</c><b>2</b></a>", r#"{"a":{"b":["1",null,"2"],"c":"3"}}"#),
            ("<a>x<b/>y</a>", r##"{"a":{"b":null,"#text":"xy"}}"##),
            ("<a>\n  <b> x </b>\n</a>", r#"{"a":{"b":" x "}}"#),
            ("<a><![CDATA[<&]]>&amp;<!-- c --></a>", r#"{"a":"<&&"}"#),
            ("<s:a xmlns:s='u'><s:b>1</s:b></s:a>", r#"{"s:a":{"@xmlns:s":"u","s:b":"1"}}"#),
        ] {
            assert_eq!(read(xml.as_bytes()).map(|value| value.to_string()).as_deref(), Ok(want), "{xml}");
        }
    }

    #[test]
    fn what_is_not_well_formed_or_would_expand_is_refused() {
        let deep = "<a>".repeat(100_000);
        for xml in [
            "",
            "text",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<a b=1/>",
            "<a b='1' b='2'/>",
            "<a b='1'c='2'/>",
            "<a b='<'/>",
            "<a>&nbsp;</a>",
            "<a>&x</a>",
            "<a>&#0;</a>",
            "<a>&#xd800;</a>",
            "<a>&#+65;</a>",
            "<a>\u{1}</a>",
            "<a>]]></a>",
            "<1/>",
            "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
            "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>",
            deep.as_str(),
        ] {
            assert_eq!(read(xml.as_bytes()), Err(NotXml), "{}", xml.get(..40).unwrap_or(xml));
        }
        let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert!(read(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(read(nested(MAX_DEPTH + 1).as_bytes()), Err(NotXml));
    }
}
