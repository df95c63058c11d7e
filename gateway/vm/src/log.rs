//! What a guest says, and what the gateway has to say about a guest: one line each, escaped, and no faster than the limit.
//!
//! **Invariant:** no byte of a guest's can end a log line, move a cursor or reorder what is shown.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use portcullis_abi::LogLevel;
use portcullis_core::tenant::Account;
use portcullis_core::time::Time;

use crate::cells::VmCells;

/// The most bytes of one message; what is beyond is cut off.
const LINE_BYTES: usize = 8 << 10;
/// What a note of the gateway's counts as, on its tenant's account.
const NOTE_BYTES: usize = 100;
/// About how many bytes of errors are kept to explain a failure.
const ERROR_BYTES: usize = 1 << 10;
/// The most lines per second, and the most at once.
const LINES_PER_SECOND: u32 = 1000;

/// Logs an event at a level that is known only at run time.
macro_rules! at {
    ($level:expr, $($event:tt)*) => {
        match $level {
            LogLevel::Trace => tracing::trace!($($event)*),
            LogLevel::Debug => tracing::debug!($($event)*),
            LogLevel::Info => tracing::info!($($event)*),
            LogLevel::Warn => tracing::warn!($($event)*),
            LogLevel::Error | LogLevel::Critical => tracing::error!($($event)*),
        }
    };
}

/// One VM's voice in the log.
#[derive(Debug)]
pub(crate) struct Voice {
    cells: Arc<VmCells>,
    /// Its tenant's, whose lines have a bound together.
    account: Option<Arc<Account>>,
    /// When the callback began that runs.
    now: Cell<Time>,
    rate: Arc<Rate>,
    errors: RefCell<String>,
}

/// How many lines are left to a VM in this second, to all its lives and copies together.
#[derive(Debug)]
pub(crate) struct Rate(Mutex<Second>);

#[derive(Debug)]
struct Second {
    left: u32,
    filled: Instant,
    dropped: u64,
}

impl Default for Rate {
    fn default() -> Self {
        Self(Mutex::new(Second { left: LINES_PER_SECOND, filled: Instant::now(), dropped: 0 }))
    }
}

impl Voice {
    pub(crate) fn new(cells: Arc<VmCells>, account: Option<Arc<Account>>, rate: Arc<Rate>) -> Self {
        Self { cells, account, now: Cell::default(), rate, errors: RefCell::default() }
    }

    /// Notes what time it is.
    pub(crate) fn hear_time(&self, now: Time) {
        self.now.set(now);
    }

    /// Logs a guest's message.
    pub(crate) fn say(&self, level: LogLevel, message: &[u8]) {
        // Errors are kept whatever the level of the log: they explain a trap or a refused configuration.
        if level < LogLevel::Error && level < self.level() {
            return;
        }
        if !self.may_speak(message.len().min(LINE_BYTES)) {
            return;
        }
        let line = escaped(message);
        at!(level, target: "portcullis::guest", tenant = self.tenant(), plugin = &*self.cells.plugin, "{line}");
        if level >= LogLevel::Error {
            self.remember(&line);
        }
    }

    /// Keeps an error, as long as there is room: the first ones explain the most.
    fn remember(&self, line: &str) {
        let mut errors = self.errors.borrow_mut();
        if errors.len() < ERROR_BYTES {
            if !errors.is_empty() {
                errors.push_str("; ");
            }
            errors.extend(line.chars().take(ERROR_BYTES));
        }
    }

    /// Forgets the errors of an earlier callback.
    pub(crate) fn forget_errors(&self) {
        self.errors.borrow_mut().clear();
    }

    /// Logs something about the guest that is not an error of the gateway.
    pub(crate) fn note(&self, hostcall: &str, what: std::fmt::Arguments<'_>) {
        if self.may_speak(NOTE_BYTES) {
            tracing::warn!(tenant = self.tenant(), plugin = &*self.cells.plugin, hostcall, "{what}");
        }
    }

    /// The least serious level that is logged.
    pub(crate) fn level(&self) -> LogLevel {
        let rows = [
            (tracing::enabled!(target: "portcullis::guest", tracing::Level::TRACE), LogLevel::Trace),
            (tracing::enabled!(target: "portcullis::guest", tracing::Level::DEBUG), LogLevel::Debug),
            (tracing::enabled!(target: "portcullis::guest", tracing::Level::INFO), LogLevel::Info),
            (tracing::enabled!(target: "portcullis::guest", tracing::Level::WARN), LogLevel::Warn),
            (tracing::enabled!(target: "portcullis::guest", tracing::Level::ERROR), LogLevel::Error),
        ];
        rows.into_iter().find_map(|(enabled, level)| enabled.then_some(level)).unwrap_or(LogLevel::Critical)
    }

    /// The errors the guest logged in this callback.
    pub(crate) fn errors(&self) -> Option<Box<str>> {
        let errors = self.errors.borrow();
        (!errors.is_empty()).then(|| errors.as_str().into())
    }

    /// What is counted about its VM.
    pub(crate) fn cells(&self) -> &VmCells {
        &self.cells
    }

    fn tenant(&self) -> &str {
        self.cells.tenant.as_deref().unwrap_or_default()
    }

    /// Whether a line of so many bytes may be logged: by the tenant's bound, and by the VM's own.
    fn may_speak(&self, bytes: usize) -> bool {
        if self.account.as_ref().is_some_and(|account| !account.log(bytes, self.now.get())) {
            self.cells.log_lines_dropped.add(1);
            return false;
        }
        self.is_in_time()
    }

    fn is_in_time(&self) -> bool {
        // Nobody else is ever at it: it is behind a lock because VMs start on one thread and live on another.
        let mut second = self.rate.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left) = second.left.checked_sub(1) {
            second.left = left;
            return true;
        }
        let now = Instant::now();
        if now.saturating_duration_since(second.filled).as_secs() == 0 {
            second.dropped += 1;
            self.cells.log_lines_dropped.add(1);
            return false;
        }
        let dropped =
            std::mem::replace(&mut *second, Second { left: LINES_PER_SECOND - 1, filled: now, dropped: 0 }).dropped;
        drop(second);
        tracing::warn!(tenant = self.tenant(), plugin = &*self.cells.plugin, dropped, "the plugin logs too much");
        true
    }
}

/// The message as one harmless line.
fn escaped(message: &[u8]) -> String {
    let (kept, cut) = match message.get(..LINE_BYTES) {
        Some(kept) => (kept, message.len() - kept.len()),
        None => (message, 0),
    };
    let text = String::from_utf8_lossy(kept);
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) { line.extend(c.escape_default()) } else { line.push(c) }
    }
    if cut > 0 {
        let _infallible = write!(line, "… ({cut} bytes cut)");
    }
    line
}

/// Control characters, and those that break a line or turn its direction round.
fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use portcullis_core::tenant::{Limit, Limits};

    use super::*;

    #[test]
    fn a_message_stays_one_harmless_line() {
        for (message, want) in [
            (&b"plain \xc3\xa9"[..], "plain é"),
            (b"a\nlevel=error b\r", "a\\nlevel=error b\\r"),
            (b"\x1b[31mred\x00", "\\u{1b}[31mred\\u{0}"),
            ("a\u{202e}b\u{2028}c\u{9b}".as_bytes(), "a\\u{202e}b\\u{2028}c\\u{9b}"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(escaped(message), want);
        }
        let long = escaped(&vec![b'x'; LINE_BYTES + 5]);
        assert!(long.ends_with("x… (5 bytes cut)"));
    }

    #[test]
    fn lines_beyond_the_tenants_bytes_are_dropped_and_counted() {
        let account = Arc::<Account>::default();
        account.limit(&Limits { log: Some(10), ..Limits::default() });
        let cells = Arc::new(VmCells::new(None, "p".into(), Arc::default()));
        let voices = [(); 2].map(|()| Voice::new(cells.clone(), Some(account.clone()), Arc::default()));
        voices.iter().for_each(|voice| voice.hear_time(Time::from_nanos(1 << 40)));
        for voice in &voices {
            voice.say(LogLevel::Critical, b"six by");
        }
        assert_eq!(voices.each_ref().map(Voice::errors), [Some("six by".into()), None], "all VMs draw on one account");
        assert_eq!((cells.log_lines_dropped.get(), account.refused(Limit::Log)), (1, 1));
    }

    #[test]
    fn lines_beyond_the_rate_are_dropped_and_counted() {
        let cells = Arc::new(VmCells::new(None, "p".into(), Arc::default()));
        let voice = Voice::new(cells.clone(), None, Arc::default());
        for _ in 0..LINES_PER_SECOND + 3 {
            voice.say(LogLevel::Critical, b"again");
        }
        // A slow machine may have begun its next second.
        assert!(cells.log_lines_dropped.get() <= 3);
        assert!(voice.errors().unwrap().starts_with("again; again"));
        assert!(voice.errors().unwrap().len() < ERROR_BYTES + 8);
        voice.forget_errors();
        assert_eq!(voice.errors(), None);
    }
}
