//! What attributes say: doc comments, and the serde attributes that change how JSON looks.

use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, ExprLit, Ident, Lit, Meta, Token};

/// What serde was told about a container, a variant or a field.
#[derive(Default)]
pub(crate) struct Serde {
    pub(crate) rename: Option<String>,
    pub(crate) rename_all: Option<String>,
    pub(crate) default: bool,
    pub(crate) skip: bool,
    pub(crate) untagged: bool,
    pub(crate) tag: Option<String>,
    pub(crate) aliases: Vec<String>,
}

impl Serde {
    pub(crate) fn of(attributes: &[Attribute]) -> syn::Result<Self> {
        let mut serde = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
            for meta in attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)? {
                serde.take(&meta)?;
            }
        }
        Ok(serde)
    }

    fn take(&mut self, meta: &Meta) -> syn::Result<()> {
        let Some(name) = meta.path().get_ident().map(Ident::to_string) else { return Ok(()) };
        match name.as_str() {
            "rename" => self.rename = text(meta),
            "rename_all" => self.rename_all = text(meta),
            "default" => self.default = true,
            "skip" | "skip_deserializing" => self.skip = true,
            "untagged" => self.untagged = true,
            "tag" => self.tag = text(meta),
            "alias" => self.aliases.extend(text(meta)),
            // They change what is read in ways that a schema of these fields would not show.
            "flatten" | "content" | "from" | "try_from" | "remote" | "with" | "deserialize_with" => {
                return Err(syn::Error::new_spanned(
                    meta,
                    format!(
                        "`{name}` would make the schema wrong; implement `Deserialize` and `Schema` by hand instead"
                    ),
                ));
            }
            _ => {}
        }
        Ok(())
    }

    /// A name as JSON has it.
    pub(crate) fn name(&self, rule: Option<&str>, own: &str) -> String {
        self.rename.clone().unwrap_or_else(|| renamed(own, rule))
    }
}

fn text(meta: &Meta) -> Option<String> {
    let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &meta.require_name_value().ok()?.value else { return None };
    Some(text.value())
}

/// The doc comment, its lines joined as a paragraph.
pub(crate) fn docs(attributes: &[Attribute]) -> Option<String> {
    let lines = attributes.iter().filter(|attribute| attribute.path().is_ident("doc"));
    let lines: Vec<String> =
        lines.filter_map(|attribute| text(&attribute.meta)).map(|line| line.trim().to_owned()).collect();
    let paragraphs: Vec<String> = lines.split(String::is_empty).map(|lines| lines.join(" ")).collect();
    let text = paragraphs.join("\n").trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// serde's rules for names.
fn renamed(own: &str, rule: Option<&str>) -> String {
    let own = own.trim_start_matches("r#");
    let words = words(own);
    let capital = |word: &String| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
    };
    match rule {
        Some("lowercase") => own.to_ascii_lowercase(),
        Some("UPPERCASE") => own.to_ascii_uppercase(),
        Some("snake_case") => words.join("_"),
        Some("kebab-case") => words.join("-"),
        Some("SCREAMING_SNAKE_CASE") => words.join("_").to_ascii_uppercase(),
        Some("SCREAMING-KEBAB-CASE") => words.join("-").to_ascii_uppercase(),
        Some("PascalCase") => words.iter().map(capital).collect(),
        Some("camelCase") => {
            let mut all: Vec<String> = words.iter().map(capital).collect();
            if let (Some(first), Some(word)) = (all.first_mut(), words.first()) {
                first.clone_from(word);
            }
            all.concat()
        }
        _ => own.to_owned(),
    }
}

/// The words of `snake_case` or `PascalCase`, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in name.chars() {
        let starts = letter == '_' || letter.is_ascii_uppercase();
        if starts && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        if letter != '_'
            && let Some(word) = words.last_mut()
        {
            word.push(letter.to_ascii_lowercase());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_serdes_rules() {
        for (own, rule, want) in [
            ("max_bytes", None, "max_bytes"),
            ("max_bytes", Some("camelCase"), "maxBytes"),
            ("max_bytes", Some("kebab-case"), "max-bytes"),
            ("ClientAddress", Some("snake_case"), "client_address"),
            ("ClientAddress", Some("lowercase"), "clientaddress"),
            ("r#type", None, "type"),
        ] {
            assert_eq!(renamed(own, rule), want);
        }
    }
}
