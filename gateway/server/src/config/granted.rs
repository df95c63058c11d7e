//! What grants are written with: functions of the ABI.

use portcullis_vm::Capabilities;

use super::names::nearest;
use super::written::Written;

/// A function of the ABI that can be granted to a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capability(pub(crate) &'static str);

impl Written for Capability {
    const FORMAT: &'static str = "capability";
    const WHAT: &'static str = "a function of the ABI that can be granted";
    const EXAMPLES: &'static [&'static str] = &["proxy_http_call", "proxy_on_request_headers", "fd_write"];

    fn read(text: &str) -> Result<Self, String> {
        let known: Vec<&str> = Capabilities::names().collect();
        let found = Capabilities::names().find(|name| *name == text).map(Self);
        found.ok_or_else(|| match nearest(text, &known) {
            Some(near) => format!("`{near}` is close"),
            None => "no function that can be granted has this name".to_owned(),
        })
    }

    fn write(&self) -> String {
        self.0.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_is_a_name_of_the_abi() {
        for name in Capability::EXAMPLES {
            assert_eq!(Capability::read(name).unwrap().write(), *name);
        }
        for (text, why) in [
            ("proxy_http_cal", "`proxy_http_call` is close"),
            ("malloc", "no function that can be granted has this name"),
            ("proc_exit", "no function that can be granted has this name"),
        ] {
            assert_eq!(Capability::read(text), Err(why.to_owned()));
        }
    }
}
