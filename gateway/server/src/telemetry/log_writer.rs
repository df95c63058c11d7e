//! The thread that writes the access log, so that a slow reader of it never holds a worker up.
//!
//! Workers hand over whole buffers and get them back empty. What is handed over and not yet written is bounded; beyond that
//! lines are dropped and counted. When the last holder lets go, everything handed over is written, within a deadline.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Buffers handed over and not yet written: some 10 MiB, a second or so of lines at full load.
const MAX_BATCHES: usize = 256;
/// How long the end may wait for a reader that does not read.
const LAST_CALL: Duration = Duration::from_secs(2);

/// Some lines, and where their buffer goes afterwards.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u64,
    pub(super) back: mpsc::Sender<Vec<u8>>,
}

/// The writer is too far behind.
#[derive(Debug)]
pub(super) struct Refused(pub(super) Batch);

/// What the writer and those who hand over share.
#[derive(Debug, Default)]
struct Tally {
    batches: AtomicUsize,
    dropped: AtomicU64,
}

/// The hand-over to the writing thread.
#[derive(Debug)]
pub(super) struct LogWriter {
    tally: Arc<Tally>,
    queue: Option<mpsc::Sender<Batch>>,
    #[allow(
        clippy::disallowed_types,
        reason = "never locked: it makes the receiver shareable, and only the end looks at it"
    )]
    ended: std::sync::Mutex<mpsc::Receiver<()>>,
}

impl LogWriter {
    /// Starts the thread. If there is no thread to be had, every line is dropped and counted.
    pub(super) fn start(out: impl Write + Send + 'static) -> Self {
        let tally = Arc::new(Tally::default());
        let (queue, queued) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let shared = tally.clone();
        let body = move || {
            write_all(out, &queued, &shared);
            drop(end);
        };
        if let Err(error) = thread::Builder::new().name("access-log".to_owned()).spawn(body) {
            tracing::error!(%error, "the access log cannot be written");
        }
        Self { tally, queue: Some(queue), ended: ended.into() }
    }

    /// Hands lines over, unless the writer is too far behind.
    pub(super) fn offer(&self, batch: Batch) -> Result<(), Refused> {
        if self.tally.batches.load(Ordering::Relaxed) >= MAX_BATCHES {
            return Err(Refused(batch));
        }
        self.push(batch);
        Ok(())
    }

    /// Hands a worker's last lines over, however far behind the writer is.
    pub(super) fn push(&self, batch: Batch) {
        self.tally.batches.fetch_add(1, Ordering::Relaxed);
        let lost = match &self.queue {
            Some(queue) => queue.send(batch).err().map(|unsent| unsent.0),
            None => Some(batch),
        };
        if let Some(batch) = lost {
            self.tally.batches.fetch_sub(1, Ordering::Relaxed);
            self.count_dropped(batch.lines);
        }
    }

    pub(super) fn count_dropped(&self, lines: u64) {
        self.tally.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    /// How many lines were not written.
    pub(super) fn dropped(&self) -> u64 {
        self.tally.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Ok(ended) = self.ended.get_mut()
            && ended.recv_timeout(LAST_CALL) == Err(mpsc::RecvTimeoutError::Timeout)
        {
            tracing::warn!("the access log's reader does not read; its last lines are lost");
        }
    }
}

fn write_all(mut out: impl Write, queued: &mpsc::Receiver<Batch>, tally: &Tally) {
    let mut failed = false;
    for Batch { mut bytes, lines, back } in queued {
        if let Err(error) = out.write_all(&bytes).and_then(|()| out.flush()) {
            tally.dropped.fetch_add(lines, Ordering::Relaxed);
            if !failed {
                tracing::error!(%error, "the access log cannot be written");
            }
            failed = true;
        } else {
            failed = false;
        }
        tally.batches.fetch_sub(1, Ordering::Relaxed);
        bytes.clear();
        // A worker that has ended needs no buffer.
        let _unwanted = back.send(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// Writes nothing until it is told to.
    struct Stuck(mpsc::Receiver<()>, mpsc::Sender<Vec<u8>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _let_go = self.0.recv();
            let _ = self.1.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn batch(back: &mpsc::Sender<Vec<u8>>) -> Batch {
        Batch { bytes: b"line\n".to_vec(), lines: 1, back: back.clone() }
    }

    #[test]
    fn a_writer_that_is_stuck_holds_nobody_up_and_loses_nothing_it_took() {
        let ((let_go, held), (written, lines), (back, returned)) = (mpsc::channel(), mpsc::channel(), mpsc::channel());
        let writer = LogWriter::start(Stuck(held, written));
        let taken = (0..2 * MAX_BATCHES).filter(|_| writer.offer(batch(&back)).is_ok()).count();
        assert_eq!(taken, MAX_BATCHES);
        drop(let_go);
        drop(writer);
        assert_eq!(lines.try_iter().count(), MAX_BATCHES);
        assert!(returned.try_iter().all(|buffer| buffer.is_empty() && buffer.capacity() > 0));
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let (back, returned) = mpsc::channel();
        let writer = LogWriter::start(Broken);
        writer.push(batch(&back));
        writer.push(batch(&back));
        // A buffer comes back when the writer is done with it.
        for _ in 0..2 {
            returned.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        assert_eq!(writer.dropped(), 2);
    }
}
