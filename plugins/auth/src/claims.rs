//! What is said of whoever sends a request, and the rules of a token's claims (RFC 7519 §4, RFC 8725 §3).
//!
//! Every scheme says it in the form of claims, so that headers, scopes and roles are decided in one way for all.

use serde_json::{Map, Value};

use crate::refusal::Refusal;

/// A name for a claim, which may be inside of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimPath(String);

impl ClaimPath {
    /// `a.b` is `b` of `a`, unless there is a claim with the name `a.b`: some issuers use addresses as names.
    pub(crate) fn new(path: String) -> Self {
        Self(path)
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// The claim, if it is there and not null.
    pub(crate) fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        let whole = claims.get(&self.0);
        let found = whole.or_else(|| {
            let mut steps = self.0.split('.');
            let first = claims.get(steps.next()?)?;
            steps.try_fold(first, |value, step| value.get(step))
        });
        found.filter(|value| !value.is_null())
    }
}

/// What a token has to satisfy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// Empty: any.
    pub(crate) issuers: Vec<String>,
    /// Of `iss`, where there are issuers.
    pub(crate) issuer: Presence,
    /// Empty: any.
    pub(crate) audience: Vec<String>,
    pub(crate) leeway_s: u64,
    /// Of `exp`.
    pub(crate) expiry: Presence,
    /// In lower case, without `application/`. Empty: none, `JWT` and `at+jwt`.
    pub(crate) types: Vec<String>,
    /// A claim, and of what it has to be or hold one. Empty: it only has to be there.
    pub(crate) required: Vec<(ClaimPath, Vec<Value>)>,
}

/// Whether a claim has to be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Presence {
    #[default]
    Required,
    /// It is looked at where it is there.
    Optional,
}

/// Since when and until when a token is good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    expires_s: Option<u64>,
    from_s: Option<u64>,
}

impl Rules {
    /// Judges the claims of a token of this `typ` whose signature was right, but for the time.
    pub(crate) fn check(&self, typ: Option<&str>, claims: &Map<String, Value>) -> Result<Times, Refusal> {
        self.check_type(typ)?;
        self.check_claims(claims)
    }

    /// Judges what is known of a token, whoever says it, but for the time.
    pub(crate) fn check_claims(&self, claims: &Map<String, Value>) -> Result<Times, Refusal> {
        let times = Times { expires_s: seconds(claims, "exp")?, from_s: seconds(claims, "nbf")? };
        if times.expires_s.is_none() && self.expiry == Presence::Required {
            return Err(Refusal::Claims);
        }
        self.check_parties(claims)?;
        self.required.iter().try_for_each(|(path, wanted)| {
            let claim = path.find(claims).ok_or(Refusal::ClaimMissing)?;
            if wanted.is_empty() || wanted.iter().any(|wanted| holds(claim, wanted)) {
                Ok(())
            } else {
                Err(Refusal::ClaimMissing)
            }
        })?;
        Ok(times)
    }

    /// Judges the time.
    pub(crate) fn check_times(&self, times: Times, now_s: u64) -> Result<(), Refusal> {
        if times.expires_s.is_some_and(|expires| expires.saturating_add(self.leeway_s) <= now_s) {
            return Err(Refusal::Expired);
        }
        if times.from_s.is_some_and(|from| from > now_s.saturating_add(self.leeway_s)) {
            return Err(Refusal::NotYetValid);
        }
        Ok(())
    }

    /// RFC 8725 §3.11: an issuer's key signs other things than access tokens, such as logout tokens.
    fn check_type(&self, typ: Option<&str>) -> Result<(), Refusal> {
        let typ = typ.map(str::to_ascii_lowercase);
        let typ = typ.as_deref().map(|typ| typ.strip_prefix("application/").unwrap_or(typ));
        let fits = match typ {
            None => self.types.is_empty(),
            Some("jwt" | "at+jwt") if self.types.is_empty() => true,
            Some(typ) => self.types.iter().any(|wanted| wanted == typ),
        };
        if fits { Ok(()) } else { Err(Refusal::Kind) }
    }

    fn check_parties(&self, claims: &Map<String, Value>) -> Result<(), Refusal> {
        let (said, issuer) = (claims.contains_key("iss"), claims.get("iss").and_then(Value::as_str));
        let counts = !self.issuers.is_empty() && (said || self.issuer == Presence::Required);
        if counts && !self.issuers.iter().any(|known| issuer == Some(known)) {
            return Err(Refusal::Issuer);
        }
        let named = words(claims.get("aud"), Split::No);
        if !self.audience.is_empty() && !self.audience.iter().any(|wanted| named.contains(&wanted.as_str())) {
            return Err(Refusal::Audience);
        }
        Ok(())
    }
}

fn holds(claim: &Value, wanted: &Value) -> bool {
    claim == wanted || claim.as_array().is_some_and(|list| list.contains(wanted))
}

/// A NumericDate (RFC 7519 §2), whole seconds; fractions are cut off.
#[allow(clippy::cast_possible_truncation, reason = "the cast saturates, and the sign was checked")]
fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Refusal> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    match value.as_u64().or_else(|| value.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| seconds as u64)) {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(Refusal::Claims),
    }
}

/// Whether a string is one word or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    Yes,
    No,
}

/// The words of a claim that is one string or a list of them.
pub(crate) fn words(claim: Option<&Value>, split: Split) -> Vec<&str> {
    match claim {
        Some(Value::String(words)) if split == Split::Yes => words.split_ascii_whitespace().collect(),
        Some(Value::String(word)) => vec![word],
        Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => Vec::new(),
    }
}

/// A claim as a header value: strings as they are, anything else as JSON, nothing that could end its line.
pub(crate) fn header_value(claim: &Value) -> Option<String> {
    let value = match claim {
        Value::String(value) => value.clone(),
        Value::Null => return None,
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => other.to_string(),
    };
    value.bytes().all(|byte| (0x20..0x7f).contains(&byte)).then_some(value)
}
