//! Streams: messages both ways, in any order, until one side has had enough.

use std::fmt;
use std::marker::PhantomData;

use portcullis_abi::{MapType, Status};
use proxy_wasm::hostcalls;

use super::{DEFAULT_LIMIT, GrpcError, Message, Method, received};
use crate::callout::may_dispatch;
use crate::headers::{Fields, Headers};
use crate::pending::{Calls, More, Pending};
use crate::timer::sleep;
use crate::{ms, sys};

/// A stream that has not been opened.
///
/// ```
/// # use portcullis_sdk::{Upstream, grpc::{GrpcError, Stream}};
/// async fn open(talk: &Upstream) -> Result<Stream<Vec<u8>, Vec<u8>>, GrpcError> {
///     talk.grpc_stream("acme.talk.v1.Talk", "Chat").metadata("x-tenant", "acme").limit(64 * 1024).open().await
/// }
/// ```
#[must_use = "nothing is opened before `open`"]
pub struct StreamCall<Out, In> {
    method: Method,
    limit: usize,
    types: PhantomData<(Out, In)>,
}

impl<Out: Message, In: Message> StreamCall<Out, In> {
    pub(super) fn new(method: Method) -> Self {
        Self { method, limit: DEFAULT_LIMIT, types: PhantomData }
    }

    /// With one more entry of metadata.
    ///
    /// ```
    /// use portcullis_sdk::{Upstream, grpc::StreamCall};
    /// let call: StreamCall<Vec<u8>, Vec<u8>> = Upstream::from("talk").grpc_stream("acme.Talk", "Chat").metadata("x-tenant", "acme");
    /// ```
    pub fn metadata(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.method.metadata.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// With at most so many bytes of messages that have come and that the filter has not read; 1 MiB otherwise. A stream that
    /// brings more is broken off.
    ///
    /// ```
    /// use portcullis_sdk::{Upstream, grpc::StreamCall};
    /// let call: StreamCall<Vec<u8>, Vec<u8>> = Upstream::from("talk").grpc_stream("acme.Talk", "Chat").limit(16 * 1024);
    /// ```
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Opens it. Whether the service is there shows when something is received.
    ///
    /// # Errors
    /// When the gateway knows no such upstream, or does not open the stream.
    ///
    /// ```
    /// # use portcullis_sdk::{Upstream, grpc::{GrpcError, Stream}};
    /// async fn open(talk: &Upstream) -> Result<Stream<Vec<u8>, Vec<u8>>, GrpcError> {
    ///     talk.grpc_stream("acme.Talk", "Chat").open().await
    /// }
    /// ```
    pub async fn open(self) -> Result<Stream<Out, In>, GrpcError> {
        while !may_dispatch() {
            sleep(ms(1)).await;
        }
        let Method { upstream, service, method, .. } = &self.method;
        let begun = hostcalls::open_grpc_stream(upstream.name(), service, method, self.method.metadata());
        let token = begun.map_err(|status| self.method.refused(status))?;
        let pending = Pending::new(&STREAMS, token, self.limit, sys::cancel_grpc);
        Ok(Stream { pending, metadata: Vec::new(), trailers: Vec::new(), types: PhantomData })
    }
}

impl<Out, In> fmt::Debug for StreamCall<Out, In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamCall").field("method", &self.method).finish_non_exhaustive()
    }
}

/// An open stream. Dropped before its end, it is broken off.
///
/// ```
/// # use portcullis_sdk::{ms, timeout, grpc::Stream};
/// async fn asked(stream: &mut Stream<Vec<u8>, Vec<u8>>, question: Vec<u8>) -> Option<Vec<u8>> {
///     stream.send(&question).ok()?;
///     timeout(ms(50), stream.next()).await.ok()?.ok()?
/// }
/// ```
pub struct Stream<Out, In> {
    pending: Pending<News>,
    metadata: Fields,
    trailers: Fields,
    types: PhantomData<(Out, In)>,
}

impl<Out: Message, In: Message> Stream<Out, In> {
    /// Sends a message. It goes out as the service takes it.
    ///
    /// # Errors
    /// When nothing more can be sent.
    ///
    /// ```
    /// # use portcullis_sdk::grpc::{GrpcError, Stream};
    /// fn send_all(stream: &mut Stream<Vec<u8>, Vec<u8>>, messages: &[Vec<u8>]) -> Result<(), GrpcError> {
    ///     messages.iter().try_for_each(|message| stream.send(message))
    /// }
    /// ```
    pub fn send(&mut self, message: &Out) -> Result<(), GrpcError> {
        sys::send_grpc(self.pending.token, &message.encode()).map_err(|_: Status| GrpcError::NotSent)
    }

    /// Says that nothing more will be sent. The service may go on sending.
    ///
    /// ```
    /// # use portcullis_sdk::grpc::{GrpcError, Stream};
    /// async fn rest(mut stream: Stream<Vec<u8>, Vec<u8>>) -> Result<Vec<Vec<u8>>, GrpcError> {
    ///     stream.finish();
    ///     let mut rest = Vec::new();
    ///     while let Some(message) = stream.next().await? {
    ///         rest.push(message);
    ///     }
    ///     Ok(rest)
    /// }
    /// ```
    pub fn finish(&mut self) {
        sys::close_grpc(self.pending.token);
    }

    /// Waits for the next message; there is none when the service has ended the stream, and all is well.
    ///
    /// # Errors
    /// When the stream ends with another status than 0, or the message is none.
    ///
    /// ```
    /// # use portcullis_sdk::grpc::{GrpcError, Stream};
    /// async fn count(stream: &mut Stream<Vec<u8>, Vec<u8>>) -> Result<u32, GrpcError> {
    ///     let mut count = 0;
    ///     while stream.next().await?.is_some() {
    ///         count += 1;
    ///     }
    ///     Ok(count)
    /// }
    /// ```
    pub async fn next(&mut self) -> Result<Option<In>, GrpcError> {
        loop {
            match self.pending.next().await {
                Some(News::Began(metadata)) => self.metadata = metadata,
                Some(News::Message(bytes)) => return In::decode(&bytes).map(Some).map_err(GrpcError::Message),
                Some(News::Trailers(trailers)) => self.trailers = trailers,
                Some(News::Ended(Err(why))) => return Err(why),
                Some(News::Ended(Ok(()))) | None => return Ok(None),
            }
        }
    }

    /// The service's metadata: what came before its first message, as soon as that has been received.
    ///
    /// ```
    /// # use portcullis_sdk::grpc::Stream;
    /// fn region(stream: &Stream<Vec<u8>, Vec<u8>>) -> Option<String> {
    ///     stream.metadata().text("x-region")
    /// }
    /// ```
    #[must_use]
    pub fn metadata(&self) -> Headers<'_> {
        Headers::own(&self.metadata)
    }

    /// What came behind its last message, once [`Self::next`] has said that there is none any more.
    ///
    /// ```
    /// # use portcullis_sdk::grpc::Stream;
    /// fn cost(stream: &Stream<Vec<u8>, Vec<u8>>) -> Option<u32> {
    ///     stream.trailers().text("x-cost")?.parse().ok()
    /// }
    /// ```
    #[must_use]
    pub fn trailers(&self) -> Headers<'_> {
        Headers::own(&self.trailers)
    }
}

impl<Out, In> fmt::Debug for Stream<Out, In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("token", &self.pending.token).finish_non_exhaustive()
    }
}

/// What comes of a stream.
enum News {
    Began(Fields),
    Message(Vec<u8>),
    Trailers(Fields),
    Ended(Result<(), GrpcError>),
}

impl News {
    fn size(&self) -> usize {
        match self {
            Self::Message(bytes) => bytes.len(),
            Self::Began(_) | Self::Trailers(_) | Self::Ended(_) => 0,
        }
    }
}

thread_local! {
    static STREAMS: Calls<News> = const { Calls::new() };
}

fn put(token: u32, news: News, more: More) {
    STREAMS.with(|streams| streams.put(token, news, more));
}

pub(crate) fn began(token: u32) {
    put(token, News::Began(sys::headers(MapType::GrpcReceiveInitialMetadata)), More::Yes);
}

pub(crate) fn message(token: u32, size: usize) {
    match STREAMS.with(|streams| streams.room(token, News::size)) {
        None => {}
        Some(room) if size > room => {
            sys::cancel_grpc(token);
            put(token, News::Ended(Err(GrpcError::TooLarge)), More::No);
        }
        Some(_) => put(token, News::Message(received(size)), More::Yes),
    }
}

pub(crate) fn trailers(token: u32) {
    put(token, News::Trailers(sys::headers(MapType::GrpcReceiveTrailingMetadata)), More::Yes);
}

pub(crate) fn closed(token: u32, status: u32) {
    let ended = if status == 0 { Ok(()) } else { Err(GrpcError::ended(status)) };
    put(token, News::Ended(ended), More::No);
}
