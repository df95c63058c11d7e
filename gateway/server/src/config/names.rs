//! Names that are close to others, for help.

/// The name that was probably meant.
pub(crate) fn nearest<'n>(name: &str, known: &[&'n str]) -> Option<&'n str> {
    let distance = |other: &str| {
        let (name, other) = (name.to_lowercase(), other.to_lowercase());
        strsim::damerau_levenshtein(&name.replace('_', "-"), &other.replace('_', "-"))
    };
    // A third of the letters may be wrong: `upstreem` is close to `upstream`, `auth` is not close to `geo`.
    let allowed = (name.chars().count() / 3).max(1);
    let near = known.iter().map(|other| (distance(other), *other)).filter(|(distance, _)| *distance <= allowed);
    near.min().map(|(_, other)| other)
}

/// Help that names what was probably meant, or else everything there is; `intro` leads the list.
pub(crate) fn close_or_all(name: &str, known: &[&str], intro: &str) -> Option<String> {
    /// More than fit on a line help nobody.
    const SHOWN: usize = 12;
    if let Some(near) = nearest(name, known) {
        return Some(format!("`{near}` is close"));
    }
    if known.is_empty() {
        return None;
    }
    let mut listed: Vec<String> = known.iter().take(SHOWN).map(|other| format!("`{other}`")).collect();
    if known.len() > SHOWN {
        listed.push("…".to_owned());
    }
    Some(format!("{intro} {}", listed.join(", ")))
}
