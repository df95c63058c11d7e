//! gRPC to upstreams: calls with one message each way, and streams.

mod stream;

use std::fmt;
use std::time::Duration;

use portcullis_abi::BufferType;
use proxy_wasm::hostcalls;
use proxy_wasm::types::Status;

pub use self::stream::{Stream, StreamCall};
pub(crate) use self::stream::{began, closed, message, trailers};
use crate::callout::{Upstream, may_dispatch};
use crate::pending::{Calls, More, Pending};
use crate::timer::sleep;
use crate::{ms, secs, sys};

/// A message as gRPC carries it. With the feature `prost`, every message of that crate is one.
///
/// ```
/// use portcullis_sdk::grpc::Message;
/// assert_eq!(Vec::<u8>::decode(b"as it is").unwrap(), b"as it is");
/// ```
pub trait Message: Sized {
    /// Its bytes.
    fn encode(&self) -> Vec<u8>;
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    fn decode(bytes: &[u8]) -> Result<Self, String>;
}

#[cfg(not(feature = "prost"))]
impl Message for Vec<u8> {
    fn encode(&self) -> Vec<u8> {
        self.clone()
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        Ok(bytes.to_vec())
    }
}

#[cfg(feature = "prost")]
impl<M: prost::Message + Default> Message for M {
    fn encode(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        <M as prost::Message>::decode(bytes).map_err(|why| why.to_string())
    }
}

impl Upstream {
    /// A gRPC call of this method with this message.
    ///
    /// ```
    /// # use portcullis_sdk::{ms, Upstream, grpc::GrpcError};
    /// async fn allowed(authz: &Upstream, request: Vec<u8>) -> Result<Vec<u8>, GrpcError> {
    ///     authz.grpc("acme.authz.v1.Check", "Allowed", &request).timeout(ms(100)).send().await
    /// }
    /// ```
    pub fn grpc(&self, service: &str, method: &str, message: &impl Message) -> GrpcCall {
        GrpcCall {
            method: Method::new(self, service, method),
            message: message.encode(),
            timeout: secs(5),
            limit: DEFAULT_LIMIT,
        }
    }

    /// A gRPC stream of this method, on which messages of one type are sent and those of another received.
    ///
    /// ```
    /// # use portcullis_sdk::{Upstream, grpc::GrpcError};
    /// async fn last_word(talk: &Upstream, words: Vec<Vec<u8>>) -> Result<Option<Vec<u8>>, GrpcError> {
    ///     let mut stream = talk.grpc_stream::<Vec<u8>, Vec<u8>>("acme.talk.v1.Talk", "Chat").open().await?;
    ///     words.iter().try_for_each(|word| stream.send(word))?;
    ///     stream.finish();
    ///     let mut last = None;
    ///     while let Some(word) = stream.next().await? {
    ///         last = Some(word);
    ///     }
    ///     Ok(last)
    /// }
    /// ```
    pub fn grpc_stream<Out: Message, In: Message>(&self, service: &str, method: &str) -> StreamCall<Out, In> {
        StreamCall::new(Method::new(self, service, method))
    }
}

/// How large a message may be, and what of a stream's may wait to be read, when nobody says otherwise.
const DEFAULT_LIMIT: usize = 1024 * 1024;

/// Where a call or a stream goes, and what it carries along.
#[derive(Clone, Debug)]
struct Method {
    upstream: Upstream,
    service: String,
    method: String,
    metadata: Vec<(String, Vec<u8>)>,
}

impl Method {
    fn new(upstream: &Upstream, service: &str, method: &str) -> Self {
        let (service, method) = (service.to_owned(), method.to_owned());
        Self { upstream: upstream.clone(), service, method, metadata: Vec::new() }
    }

    fn metadata(&self) -> Vec<(&str, &[u8])> {
        self.metadata.iter().map(|(name, value)| (name.as_str(), &value[..])).collect()
    }

    fn refused(&self, status: Status) -> GrpcError {
        let name = self.upstream.name().to_owned();
        if status == Status::ParseFailure { GrpcError::UnknownUpstream { name } } else { GrpcError::Refused { name } }
    }
}

/// A gRPC call that has not been made.
///
/// ```
/// use portcullis_sdk::{Upstream, grpc::GrpcCall, ms};
/// let call: GrpcCall = Upstream::from("authz").grpc("acme.authz.v1.Check", "Allowed", &b"ann".to_vec()).timeout(ms(50));
/// ```
#[must_use = "nothing is called before `send`"]
#[derive(Clone, Debug)]
pub struct GrpcCall {
    method: Method,
    message: Vec<u8>,
    timeout: Duration,
    limit: usize,
}

impl GrpcCall {
    /// With so much time; 5 s otherwise.
    ///
    /// ```
    /// use portcullis_sdk::{Upstream, ms};
    /// let call = Upstream::from("authz").grpc("acme.Check", "Allowed", &vec![1]).timeout(ms(20));
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// With one more entry of metadata.
    ///
    /// ```
    /// use portcullis_sdk::Upstream;
    /// let call = Upstream::from("authz").grpc("acme.Check", "Allowed", &vec![1]).metadata("x-tenant", "acme");
    /// ```
    pub fn metadata(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.method.metadata.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// With an answer of at most so many bytes; 1 MiB otherwise, which is also the most that Portcullis passes on.
    ///
    /// ```
    /// use portcullis_sdk::Upstream;
    /// let call = Upstream::from("authz").grpc("acme.Check", "Allowed", &vec![1]).limit(1024);
    /// ```
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Makes the call, and waits for its message. Dropping the future cancels the call.
    ///
    /// # Errors
    /// When the call ends with another status than 0, or with a message that is none.
    ///
    /// ```
    /// # use portcullis_sdk::{Upstream, grpc::GrpcError};
    /// async fn allowed(authz: &Upstream, who: &str) -> Result<bool, GrpcError> {
    ///     let answer: Vec<u8> = authz.grpc("acme.Check", "Allowed", &who.as_bytes().to_vec()).send().await?;
    ///     Ok(answer == [0x08, 0x01])
    /// }
    /// ```
    pub async fn send<M: Message>(self) -> Result<M, GrpcError> {
        while !may_dispatch() {
            sleep(ms(1)).await;
        }
        let bytes = self.dispatch()?.next().await.unwrap_or(Err(GrpcError::BROKEN))?;
        M::decode(&bytes).map_err(GrpcError::Message)
    }

    fn dispatch(&self) -> Result<Pending<Answer>, GrpcError> {
        let Self { method, message, timeout, limit, .. } = self;
        let begun = hostcalls::dispatch_grpc_call(
            method.upstream.name(),
            &method.service,
            &method.method,
            method.metadata(),
            Some(message),
            *timeout,
        );
        let token = begun.map_err(|status| method.refused(status))?;
        Ok(Pending::new(&CALLS, token, *limit, sys::cancel_grpc))
    }
}

/// Why a gRPC call has no message.
///
/// ```
/// use portcullis_sdk::grpc::GrpcError;
/// let is_final = |why: &GrpcError| !matches!(why, GrpcError::Status { code: 14, .. });
/// assert!(is_final(&GrpcError::Status { code: 7, message: "not you".to_owned() }));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrpcError {
    /// The gateway knows no such upstream, or does not let this filter call it.
    UnknownUpstream {
        /// The name that the settings gave.
        name: String,
    },
    /// The gateway did not make the call.
    Refused {
        /// The upstream.
        name: String,
    },
    /// It ended with this status.
    Status {
        /// One of gRPC's codes.
        code: u32,
        /// What the upstream said about it.
        message: String,
    },
    /// The message cannot be read.
    Message(String),
    /// The message is longer than the limit, or the filter reads a stream more slowly than its messages come.
    TooLarge,
    /// Nothing more can be sent on the stream: it is over, was finished, or what waits to be sent is as much as may.
    NotSent,
}

impl GrpcError {
    /// A call of which the host says nothing any more.
    const BROKEN: Self = Self::Status { code: 14, message: String::new() };

    /// The status that the host tells of, with its words.
    fn ended(code: u32) -> Self {
        let (_, message) = sys::callout_status();
        Self::Status { code, message: String::from_utf8_lossy(&message).into_owned() }
    }
}

impl fmt::Display for GrpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownUpstream { name } => write!(
                f,
                "the gateway knows no upstream `{name}` that this filter may call; define it under `upstreams` (Envoy: as a \
                 cluster), or correct the name in the filter's settings"
            ),
            Self::Refused { name } => write!(f, "the gateway did not call `{name}`"),
            Self::Status { code, message } => write!(f, "gRPC status {code}: {message}"),
            Self::Message(why) => write!(f, "the message cannot be read: {why}"),
            Self::TooLarge => f.write_str("more came than the limit allows"),
            Self::NotSent => f.write_str("nothing more can be sent on the stream"),
        }
    }
}

impl std::error::Error for GrpcError {}

/// What came of a call: its message, or why there is none.
type Answer = Result<Vec<u8>, GrpcError>;

thread_local! {
    static CALLS: Calls<Answer> = const { Calls::new() };
}

/// Takes in what came of a call.
pub(crate) fn deliver(token: u32, status: u32, size: usize) {
    CALLS.with(|calls| {
        if let Some(limit) = calls.room(token, |_| 0) {
            calls.put(token, answer(status, size, limit), More::No);
        }
    });
}

fn answer(status: u32, size: usize, limit: usize) -> Answer {
    match status {
        0 if size > limit => Err(GrpcError::TooLarge),
        0 => Ok(received(size)),
        code => Err(GrpcError::ended(code)),
    }
}

/// The message that the host hands over.
fn received(size: usize) -> Vec<u8> {
    if size == 0 { Vec::new() } else { sys::buffer(BufferType::GrpcReceiveBuffer, size) }
}
