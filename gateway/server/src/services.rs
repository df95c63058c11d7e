//! What the gateway offers beside passing requests on: services of its own, each on an address of its own.

pub(crate) mod rate_limit;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;

/// How long to wait when the process has run out of file descriptors.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// Serves the connections of a listener, so many at once, until dropped, on the thread it is polled on. `what` one of them is,
/// for the log.
pub(crate) async fn accept<F: Future<Output = ()> + 'static>(
    listener: TcpListener,
    most: usize,
    what: &str,
    serve: impl Fn(TcpStream) -> F,
) {
    let places = Arc::new(Semaphore::new(most));
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let served = serve(stream);
                spawn_local(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "{what} could not be accepted");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
}
