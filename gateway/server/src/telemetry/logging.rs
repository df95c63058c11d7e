//! The process's own log: what is in it, and how that is changed while the gateway runs.

use std::io;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The environment variable that says what is logged, in `tracing`'s filter syntax.
pub(crate) const LOG_VARIABLE: &str = "PORTCULLIS_LOG";

/// The way to the filter of the log that [`init_logging`] has set up; a process has one.
static FILTER: OnceLock<Filter> = OnceLock::new();

struct Filter {
    read: Box<dyn Fn() -> Option<String> + Send + Sync>,
    change: Box<dyn Fn(EnvFilter) -> bool + Send + Sync>,
}

/// Why what is logged was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogFilterError {
    /// Somebody else has set up logging, or nobody has.
    #[error("this process does not log by itself")]
    NotOurs,
    /// It is no filter.
    #[error("it is not a log filter: {0}")]
    Malformed(String),
}

/// Logs the process's own events to standard error, as JSON lines: those `PORTCULLIS_LOG` asks for, or `info` and worse.
///
/// Does nothing where somebody has set up logging before.
pub fn init_logging() {
    let asked = std::env::var(LOG_VARIABLE).unwrap_or_default();
    let parsed = if asked.is_empty() { Ok(EnvFilter::new("info")) } else { EnvFilter::try_new(&asked) };
    let (filter, problem) = match parsed {
        Ok(filter) => (filter, None),
        Err(problem) => (EnvFilter::new("info"), Some(problem)),
    };
    // Without the subscriber's own complaints: it would print them to standard error, and panic where that cannot be written.
    let logging = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(io::stderr)
        .with_env_filter(filter)
        .log_internal_errors(false)
        .with_filter_reloading();
    let (reader, writer) = (logging.reload_handle(), logging.reload_handle());
    if logging.try_init().is_err() {
        return;
    }
    let read = Box::new(move || reader.with_current(ToString::to_string).ok());
    let change = Box::new(move |filter| writer.reload(filter).is_ok());
    // Once only: whoever comes second has set up nothing.
    let _known = FILTER.set(Filter { read, change });
    if let Some(problem) = problem {
        tracing::warn!(%problem, "{LOG_VARIABLE} is not a log filter; `info` is used");
    }
}

/// What is logged; nothing where the log is not ours.
pub(crate) fn log_filter() -> Option<String> {
    FILTER.get().and_then(|filter| (filter.read)())
}

/// Changes what is logged, from now on and until the process ends. The log itself says before who did.
pub(crate) fn set_log_filter(text: &str, who: &str) -> Result<(), LogFilterError> {
    let filter = FILTER.get().ok_or(LogFilterError::NotOurs)?;
    let parsed = match text.trim() {
        "" => return Err(LogFilterError::Malformed("it is empty".to_owned())),
        text if is_misspelt(text) => {
            let why = format!("`{text}` is no level; all of a module's lines are asked for with `{text}=trace`");
            return Err(LogFilterError::Malformed(why));
        }
        text => EnvFilter::try_new(text).map_err(|problem| LogFilterError::Malformed(problem.to_string()))?,
    };
    let from = (filter.read)().unwrap_or_default();
    tracing::warn!(target: "portcullis::audit", who, from, to = text, "what is logged is changed");
    if (filter.change)(parsed) { Ok(()) } else { Err(LogFilterError::NotOurs) }
}

/// Whether this is one word that is no level. It is a filter too, for the lines of a module of this name and for no others: whoever has
/// misspelt a level would be left without a log.
fn is_misspelt(text: &str) -> bool {
    !text.contains(['=', ',', '[', ':']) && text.parse::<LevelFilter>().is_err()
}
