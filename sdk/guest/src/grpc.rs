//! Unary gRPC calls to upstreams.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::task::{Poll, Waker};
use std::time::Duration;

use portcullis_abi::BufferType;
use proxy_wasm::hostcalls;
use proxy_wasm::types::Status;

use crate::callout::{Upstream, may_dispatch};
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
            upstream: self.clone(),
            service: service.to_owned(),
            method: method.to_owned(),
            metadata: Vec::new(),
            message: message.encode(),
            timeout: secs(5),
        }
    }
}

/// A gRPC call that has not been made.
#[must_use = "nothing is called before `send`"]
#[derive(Clone, Debug)]
pub struct GrpcCall {
    upstream: Upstream,
    service: String,
    method: String,
    metadata: Vec<(String, Vec<u8>)>,
    message: Vec<u8>,
    timeout: Duration,
}

impl GrpcCall {
    /// With so much time; 5 s otherwise.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// With one more entry of metadata.
    pub fn metadata(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.metadata.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Makes the call, and waits for its message. Dropping the future cancels the call.
    ///
    /// # Errors
    /// When the call ends with another status than 0, or with a message that is none.
    pub async fn send<M: Message>(self) -> Result<M, GrpcError> {
        while !may_dispatch() {
            sleep(ms(1)).await;
        }
        let pending = self.dispatch()?;
        let bytes = std::future::poll_fn(|cx| pending.poll(cx.waker())).await?;
        M::decode(&bytes).map_err(GrpcError::Message)
    }

    fn dispatch(&self) -> Result<Pending, GrpcError> {
        let metadata = self.metadata.iter().map(|(name, value)| (name.as_str(), &value[..])).collect();
        let name = self.upstream.name();
        let message = Some(self.message.as_slice());
        match hostcalls::dispatch_grpc_call(name, &self.service, &self.method, metadata, message, self.timeout) {
            Ok(token) => Ok(Pending::new(token)),
            Err(Status::ParseFailure) => Err(GrpcError::UnknownUpstream { name: name.to_owned() }),
            Err(_) => Err(GrpcError::Refused { name: name.to_owned() }),
        }
    }
}

/// Why a gRPC call has no message.
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
        }
    }
}

impl std::error::Error for GrpcError {}

#[derive(Default)]
struct Waiting {
    waker: Option<Waker>,
    answer: Option<Result<Vec<u8>, GrpcError>>,
}

thread_local! {
    static WAITING: RefCell<BTreeMap<u32, Waiting>> = const { RefCell::new(BTreeMap::new()) };
}

struct Pending {
    token: u32,
}

impl Pending {
    fn new(token: u32) -> Self {
        WAITING.with_borrow_mut(|waiting| waiting.insert(token, Waiting::default()));
        Self { token }
    }

    fn poll(&self, waker: &Waker) -> Poll<Result<Vec<u8>, GrpcError>> {
        WAITING.with_borrow_mut(|waiting| {
            let Some(call) = waiting.get_mut(&self.token) else { return Poll::Pending };
            match call.answer.take() {
                Some(answer) => Poll::Ready(answer),
                None => {
                    call.waker = Some(waker.clone());
                    Poll::Pending
                }
            }
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let ended = WAITING.try_with(|waiting| waiting.borrow_mut().remove(&self.token)).ok().flatten();
        if ended.is_some_and(|call| call.waker.is_some()) {
            sys::cancel_grpc(self.token);
        }
    }
}

/// Takes in what came of a call.
pub(crate) fn deliver(token: u32, status: u32, size: usize) {
    let answer = match status {
        0 if size == 0 => Ok(Vec::new()),
        0 => Ok(sys::buffer(BufferType::GrpcReceiveBuffer, size)),
        code => {
            let (_, message) = sys::callout_status();
            Err(GrpcError::Status { code, message: String::from_utf8_lossy(&message).into_owned() })
        }
    };
    let waker = WAITING.with_borrow_mut(|waiting| {
        let call = waiting.get_mut(&token)?;
        call.answer = Some(answer);
        call.waker.take()
    });
    if let Some(waker) = waker {
        waker.wake();
    }
}
