//! What guests have logged, read from the file that a process logs to, while it does.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::Mutex;

/// A line of a guest's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// In one word.
    pub(crate) level: String,
    /// Which filter of which case says it.
    pub(crate) label: String,
    /// What it says.
    pub(crate) text: String,
}

impl Line {
    fn is_of(&self, case: &str) -> bool {
        self.label.split_once('/').is_some_and(|(name, _)| name == case)
    }
}

/// Level and message out of a line of a process's log; none for lines that are not a guest's.
pub(crate) type Reader = fn(&str) -> Option<(String, String)>;

/// A log that grows.
pub(crate) struct Log {
    path: PathBuf,
    reader: Reader,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    offset: u64,
    rest: String,
    lines: Vec<Line>,
}

impl Log {
    pub(crate) fn new(path: PathBuf, reader: Reader) -> Self {
        Self { path, reader, state: Mutex::default() }
    }

    /// The lines so far of a case's filters.
    pub(crate) fn of(&self, case: &str) -> Vec<Line> {
        let mut state = self.state.lock().unwrap();
        state.read(&self.path, self.reader);
        state.lines.iter().filter(|line| line.is_of(case)).cloned().collect()
    }

    /// Forgets the lines so far of a case's filters.
    pub(crate) fn forget(&self, case: &str) {
        let mut state = self.state.lock().unwrap();
        state.read(&self.path, self.reader);
        state.lines.retain(|line| !line.is_of(case));
    }
}

impl State {
    fn read(&mut self, path: &PathBuf, reader: Reader) {
        let mut file = File::open(path).unwrap();
        file.seek(SeekFrom::Start(self.offset)).unwrap();
        let mut more = Vec::new();
        self.offset += file.read_to_end(&mut more).unwrap() as u64;
        self.rest.push_str(&String::from_utf8_lossy(&more));
        while let Some((line, rest)) = self.rest.split_once('\n') {
            if let Some((level, message)) = reader(line)
                && let Some((label, text)) = message.split_once('|')
            {
                self.lines.push(Line { level, label: label.to_owned(), text: text.to_owned() });
            }
            self.rest = rest.to_owned();
        }
    }
}
