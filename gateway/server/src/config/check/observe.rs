//! Traces, the access log and the collector: what they mean together.

use http::{HeaderName, HeaderValue};
use portcullis_core::trace::{Parents, Policy};

use super::Check;
use crate::config::file::{self, File};
use crate::config::names::close_or_all;
use crate::config::snapshot::{AccessLog, Otlp};
use crate::config::tree::Node;
use crate::config::written::LogTarget;
use crate::diagnostic::Diagnostic;

pub(super) fn tracing(tracing: &file::Tracing) -> Policy {
    let parents = match tracing.parents {
        file::Parents::Trusted => Parents::Trusted,
        file::Parents::Any => Parents::Any,
        file::Parents::None => Parents::None,
    };
    Policy::new(parents, tracing.sample)
}

impl Check<'_> {
    /// The collector. Called once upstreams are known.
    pub(super) fn otlp(&mut self, tree: &Node, file: &File) -> Option<Otlp> {
        let (otlp, node) = (file.otlp.as_ref()?, tree.get("otlp")?);
        let place = node.get("upstream")?;
        let shared = &self.gateway.named;
        let Some(upstream) = shared.get(otlp.upstream.as_str()).copied() else {
            let names: Vec<&str> = shared.keys().map(AsRef::as_ref).collect();
            let problem =
                Diagnostic::error(format!("`otlp` sends to upstream `{}`, which does not exist", otlp.upstream))
                    .at(&place.span, "no upstream that everyone sees has this name")
                    .maybe_help(close_or_all(&otlp.upstream, &names, "the upstreams are"));
            self.report(problem);
            return None;
        };
        let mut headers = Vec::new();
        for (key, value) in node.get("headers").into_iter().flat_map(Node::entries) {
            let text = otlp.headers.get(&key.name).map_or("", String::as_str);
            match (HeaderName::try_from(key.name.as_str()), HeaderValue::try_from(text)) {
                (Ok(name), Ok(mut value)) => {
                    value.set_sensitive(true);
                    headers.push((name, value));
                }
                (Err(_), _) => self.report(
                    Diagnostic::error(format!("`{}` is not the name of a header field", key.name))
                        .at(&key.span, "it has bytes that no name has"),
                ),
                (Ok(_), Err(_)) => self.report(
                    Diagnostic::error(format!("the value of `{}` cannot be sent in a header field", key.name))
                        .at(&value.span, "it has control characters"),
                ),
            }
        }
        Some(Otlp { upstream, headers, service: otlp.service.as_str().into() })
    }

    pub(super) fn access_log(&mut self, tree: &Node, file: &File) -> AccessLog {
        let node = tree.get("access_log");
        let default = file::AccessLogSettings::default();
        let (settings, target, place) = match &file.access_log {
            file::AccessLog::Target(target) => (&default, &target.0, node),
            file::AccessLog::Settings(settings) => (settings, &settings.to.0, node.and_then(|node| node.get("to"))),
        };
        let mut to = target.clone();
        if let (LogTarget::File(path), Some(place)) = (target, place) {
            match place.span.source.resolve(&path.to_string_lossy()) {
                Ok(path) => to = LogTarget::File(path),
                Err(why) => {
                    self.report(Diagnostic::error("the access log cannot be written there").at(&place.span, why))
                }
            }
        }
        if settings.otlp
            && file.otlp.is_none()
            && let Some(place) = node.and_then(|node| node.get("otlp"))
        {
            let problem = Diagnostic::error("the access log is sent to a collector that is not there")
                .at(&place.span, "no collector is configured")
                .help("name one at the top: `otlp: { upstream: … }`");
            self.report(problem);
        }
        let names =
            |names: &[super::super::written::Text<HeaderName>]| names.iter().map(|name| name.0.clone()).collect();
        AccessLog {
            to,
            sample: settings.sample,
            otlp: settings.otlp,
            filters: settings.filters,
            request_headers: names(&settings.request_headers),
            response_headers: names(&settings.response_headers),
            properties: settings.properties.clone(),
        }
    }
}
