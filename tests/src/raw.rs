//! An origin that sends bytes: for answers no HTTP library would give, and for looking at every byte that arrives.

use std::fmt;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::wire::Wire;

/// A running origin: each connection is handed to the test's closure, on a thread of its own, with its number from 1, and closed
/// when the closure returns. Dropped, it closes them all.
pub struct RawOrigin {
    /// Where it listens.
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Display for RawOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

impl RawOrigin {
    /// Starts it.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start(serve: impl Fn(&mut Wire, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let (counted, stopped, opened, serve) = (connections.clone(), stop.clone(), open.clone(), Arc::new(serve));
        let thread = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
                opened.lock().unwrap().extend(stream.try_clone().ok());
                let serve = serve.clone();
                thread::spawn(move || {
                    let mut wire = Wire::new(stream);
                    serve(&mut wire, number);
                    // The connection is also in `open`, so dropping the wire would not close it.
                    let _already_gone = wire.stream().shutdown(Shutdown::Both);
                });
            }
        });
        Self { address, connections, stop, open, thread: Some(thread) }
    }

    /// An origin that reads each request whole and answers with these bytes, over and over.
    #[must_use]
    pub fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::start(move |wire, _| {
            while wire.message().is_ok() {
                if wire.write(&bytes).is_err() {
                    return;
                }
            }
        })
    }

    /// How many connections there were.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for RawOrigin {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for stream in self.open.lock().unwrap().drain(..) {
            let _already_gone = stream.shutdown(Shutdown::Both);
        }
        // Wakes the thread that accepts.
        let _woken = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
