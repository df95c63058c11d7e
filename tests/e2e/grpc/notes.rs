//! The service behind the gateway, on tonic's own server.

use std::convert::Infallible;
use std::fmt;
use std::future::ready;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use portcullis_tests::background::Background;
use tokio_stream::{Stream, StreamExt as _};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::metadata::MetadataMap;
use tonic::server::{
    ClientStreamingService, Grpc, NamedService, ServerStreamingService, StreamingService, UnaryService,
};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// What is sent to and fro.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Note {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
    #[prost(uint32, tag = "2")]
    pub(crate) number: u32,
}

impl Note {
    pub(crate) fn text(text: &str) -> Self {
        Self { text: text.to_owned(), number: 0 }
    }

    pub(crate) fn number(number: u32) -> Self {
        Self { text: String::new(), number }
    }
}

/// The running service.
pub(crate) struct Notes {
    pub(crate) address: SocketAddr,
    /// How many calls there were.
    pub(crate) calls: Arc<AtomicUsize>,
    live: Arc<()>,
    _background: Background,
}

impl fmt::Display for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

impl Notes {
    pub(crate) fn start() -> Self {
        let background = Background::start();
        let (calls, live) = (Arc::<AtomicUsize>::default(), Arc::new(()));
        let service = Methods { calls: calls.clone(), live: Arc::downgrade(&live) };
        let incoming = background.handle.block_on(async { TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap() });
        let address = incoming.local_addr().unwrap();
        background.handle.spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        Self { address, calls, live, _background: background }
    }

    /// How many calls are under way.
    pub(crate) fn live(&self) -> usize {
        Arc::strong_count(&self.live) - 1
    }
}

#[derive(Clone)]
struct Methods {
    calls: Arc<AtomicUsize>,
    live: std::sync::Weak<()>,
}

impl NamedService for Methods {
    const NAME: &'static str = "test.Notes";
}

impl Service<http::Request<Body>> for Methods {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.calls.fetch_add(1, Ordering::SeqCst);
        // Held by the call for as long as it lives, and by its answer.
        let live = self.live.upgrade();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<Note, Note>::default());
            Ok(match request.uri().path() {
                "/test.Notes/Say" => grpc.unary(Say, request).await,
                "/test.Notes/Slow" => grpc.unary(Slow(live), request).await,
                "/test.Notes/Count" => grpc.server_streaming(Count(live), request).await,
                "/test.Notes/Sum" => grpc.client_streaming(Sum, request).await,
                "/test.Notes/Chat" => grpc.streaming(Chat(live), request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// Kept alive for as long as a call is.
type Live = Option<Arc<()>>;
type Answers = Pin<Box<dyn Stream<Item = Result<Note, Status>> + Send>>;

struct Say;

impl UnaryService<Note> for Say {
    type Response = Note;
    type Future = std::future::Ready<Result<Response<Note>, Status>>;

    fn call(&mut self, request: Request<Note>) -> Self::Future {
        if request.get_ref().text == "fail" {
            let mut metadata = MetadataMap::new();
            metadata.insert("x-why", "because".parse().unwrap());
            let details = bytes::Bytes::from_static(b"\x00\x01details");
            let error = Status::with_details_and_metadata(Code::FailedPrecondition, "no: é %", details, metadata);
            return ready(Err(error));
        }
        let mut answer = Response::new(Note::text(&request.get_ref().text.to_uppercase()));
        for (from, to) in [("x-word", "x-word"), ("grpc-timeout", "x-timeout"), ("x-probe-request", "x-probe")] {
            if let Some(value) = request.metadata().get(from) {
                answer.metadata_mut().insert(to, value.clone());
            }
        }
        if let Some(value) = request.metadata().get_bin("x-some-bin") {
            answer.metadata_mut().insert_bin("x-some-bin", value.clone());
        }
        ready(Ok(answer))
    }
}

/// Never answers.
struct Slow(Live);

impl UnaryService<Note> for Slow {
    type Response = Note;
    type Future = BoxFuture<Response<Note>, Status>;

    fn call(&mut self, _: Request<Note>) -> Self::Future {
        let live = self.0.take();
        Box::pin(async move {
            let _live = live;
            std::future::pending().await
        })
    }
}

/// As many notes as it is told; without end for 0; three and an error for 1003.
struct Count(Live);

impl ServerStreamingService<Note> for Count {
    type Response = Note;
    type ResponseStream = Answers;
    type Future = std::future::Ready<Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<Note>) -> Self::Future {
        let live = self.0.take();
        let (number, error) = match request.get_ref().number {
            0 => (u32::MAX, None),
            1003 => (3, Some(Err(Status::resource_exhausted("three is enough")))),
            number => (number, None),
        };
        let notes = tokio_stream::iter(1..=number).map(move |number| {
            let _live = &live;
            Ok(Note::number(number))
        });
        ready(Ok(Response::new(Box::pin(notes.chain(tokio_stream::iter(error))) as Answers)))
    }
}

struct Sum;

impl ClientStreamingService<Note> for Sum {
    type Response = Note;
    type Future = BoxFuture<Response<Note>, Status>;

    fn call(&mut self, request: Request<Streaming<Note>>) -> Self::Future {
        Box::pin(async move {
            let (mut notes, mut sum) = (request.into_inner(), 0);
            while let Some(note) = notes.message().await? {
                sum += note.number;
            }
            Ok(Response::new(Note::number(sum)))
        })
    }
}

/// Answers each note when it comes.
struct Chat(Live);

impl StreamingService<Note> for Chat {
    type Response = Note;
    type ResponseStream = Answers;
    type Future = std::future::Ready<Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<Streaming<Note>>) -> Self::Future {
        let live = self.0.take();
        let mut count = 0;
        let answers = request.into_inner().map(move |note| {
            let _live = &live;
            count += 1;
            note.map(|note| Note { text: note.text.to_uppercase(), number: count })
        });
        ready(Ok(Response::new(Box::pin(answers) as Answers)))
    }
}
