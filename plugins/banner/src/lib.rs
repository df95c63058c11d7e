//! One header on the request, one on the response: a tenant's policy module at its smallest.

use portcullis_sdk::{Config, Filter, HeaderName, HeaderText, Host, Next, Request, Response, StartError};

/// What stands on the banner.
#[derive(Config)]
struct Banner {
    /// The header that has it, `x-banner` unless told otherwise.
    header: Option<HeaderName>,
    /// Its value, `hello` unless told otherwise.
    value: Option<HeaderText>,
}

impl Filter for Banner {
    type Config = Self;

    async fn start(settings: Self, _: &Host) -> Result<Self, StartError> {
        Ok(settings)
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let header = self.header.as_deref().unwrap_or("x-banner");
        let value = self.value.as_deref().unwrap_or("hello");
        request.headers_mut().set(header, value);
        let mut response = next.run(request).await;
        response.headers_mut().set(header, value);
        response
    }
}

portcullis_sdk::export_filter!(Banner);

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_testing::{Gateway, Plugin, Request as Sent};

    fn banner(config: &str) -> Result<String, String> {
        let plugin = Plugin::new("banner", portcullis_sdk::start::<Banner>).config(config);
        let mut gateway = Gateway::new().plugin(plugin).try_start().map_err(|why| why.to_string())?;
        let outcome = gateway.send(Sent::get("/"));
        let of = |seen: &portcullis_testing::Seen| {
            let (name, value) =
                seen.headers.iter().find(|(name, _)| name.starts_with("x-") && name != "x-request-id")?;
            Some(format!("{name}: {}", String::from_utf8_lossy(value)))
        };
        assert_eq!(of(outcome.at_upstream()), of(&outcome.reply));
        Ok(of(&outcome.reply).unwrap())
    }

    #[test]
    fn settings_fill_in_what_is_missing_and_refuse_what_is_odd() {
        for (config, want) in [
            ("", Ok("x-banner: hello")),
            ("{\"header\":\"x-acme\"}", Ok("x-acme: hello")),
            ("{\"header\":\"x-acme\",\"value\":\"v\"}", Ok("x-acme: v")),
            ("{\"header\":\"X-Acme\"}", Err("`header`: `X-Acme` is not a header name in lower case")),
            ("{\"value\":\"a\\r\\nb\"}", Err("`value`: a header value may not hold control characters")),
            ("{\"colour\":\"red\"}", Err("unknown field `colour`, expected `header` or `value`")),
        ] {
            let got = banner(config);
            let fits = match &want {
                Ok(want) => got.as_deref() == Ok(want),
                Err(want) => got.as_ref().is_err_and(|why| why.contains(want)),
            };
            assert!(fits, "{config}: {got:?}, not {want:?}");
        }
    }
}
