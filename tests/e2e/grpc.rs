//! gRPC through the gateway, with tonic on both sides: the four kinds of calls, and how they end.

pub(crate) mod notes;

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use portcullis_tests::background::Background;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::pieces::Piece;
use portcullis_tests::process::free_address;
use portcullis_tests::{PATIENCE, eventually};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use self::notes::{Note, Notes};

const ROUTES: &str = r#"
upstreams:
  notes: { endpoints: ["{origin}"], protocol: http2 }
  nobody: { endpoints: ["{nobody}"], protocol: http2 }
plugins: { probe: {guest:probe} }
filters: {filters}
routes:
  - { name: notes, match: { path: "/test.Notes/*" }, upstream: notes, timeout: 4s }
  - { name: nobody, match: { path: "/test.Nobody/*" }, upstream: nobody }
"#;

/// No filter at all, and one that sees every piece.
const UNWATCHED_AND_WATCHED: [&str; 2] = ["[]", "[{ plugin: probe, config: \"headers\" }]"];

fn gateway(origin: &Notes, filters: &str) -> Gateway {
    let nobody = free_address();
    Gateway::start(ROUTES, &[("origin", origin), ("nobody", &nobody), ("filters", &filters)])
}

/// A client of the service.
struct Client {
    background: Background,
    channel: Channel,
}

type Calls = tonic::client::Grpc<Channel>;
type Codec = ProstCodec<Note, Note>;

impl Client {
    fn of(gateway: &Gateway) -> Self {
        let background = Background::start();
        let endpoint = Endpoint::from_shared(format!("http://{}", gateway.address())).unwrap();
        let channel = background.handle.block_on(async { endpoint.connect_lazy() });
        Self { background, channel }
    }

    /// Runs a call to its end; it must not take longer than patience.
    fn call<T>(&self, call: impl AsyncFnOnce(Calls) -> T) -> T {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        self.background.handle.block_on(async {
            let all = async {
                grpc.ready().await.unwrap();
                call(grpc).await
            };
            tokio::time::timeout(PATIENCE, all).await.expect("the call ends")
        })
    }

    fn say(&self, request: Request<Note>) -> Result<Response<Note>, Status> {
        self.to("/test.Notes/Say", request)
    }

    fn to(&self, method: &'static str, request: Request<Note>) -> Result<Response<Note>, Status> {
        self.call(async move |mut grpc| grpc.unary(request, method.parse().unwrap(), Codec::default()).await)
    }
}

async fn count(grpc: &mut Calls, number: u32) -> Result<Streaming<Note>, Status> {
    let request = Request::new(Note::number(number));
    let path = "/test.Notes/Count".parse().unwrap();
    grpc.server_streaming(request, path, Codec::default()).await.map(Response::into_inner)
}

async fn chat(grpc: &mut Calls, notes: impl Stream<Item = Note> + Send + 'static) -> Result<Streaming<Note>, Status> {
    let path = "/test.Notes/Chat".parse().unwrap();
    grpc.streaming(Request::new(notes), path, Codec::default()).await.map(Response::into_inner)
}

#[test]
fn all_four_kinds_of_calls_pass() {
    let origin = Notes::start();
    for filters in UNWATCHED_AND_WATCHED {
        let gateway = gateway(&origin, filters);
        let client = Client::of(&gateway);
        let answer = client.say(Request::new(Note::text("hello"))).unwrap();
        assert_eq!(answer.get_ref().text, "HELLO", "{filters}");
        let counted = client.call(async |mut grpc| {
            let notes = count(&mut grpc, 100).await.unwrap();
            notes.map(|note| note.unwrap().number).collect::<Vec<_>>().await
        });
        assert_eq!(counted, (1..=100).collect::<Vec<_>>(), "{filters}");
        let sum = client.call(async |mut grpc| {
            let notes = Request::new(tokio_stream::iter((1..=100).map(Note::number)));
            let path = "/test.Notes/Sum".parse().unwrap();
            grpc.client_streaming(notes, path, Codec::default()).await.unwrap().into_inner()
        });
        assert_eq!(sum.number, 5050, "{filters}");
        client.call(async |mut grpc| {
            // Each answer comes before the next note is sent.
            let (send, notes) = mpsc::channel(1);
            send.send(Note::text("first")).await.unwrap();
            let mut answers = chat(&mut grpc, ReceiverStream::new(notes)).await.unwrap();
            for word in ["first", "second", "third"] {
                if word != "first" {
                    send.send(Note::text(word)).await.unwrap();
                }
                assert_eq!(answers.message().await.unwrap().unwrap().text, word.to_uppercase(), "{filters}");
            }
            drop(send);
            assert_eq!(answers.message().await.unwrap(), None, "{filters}");
        });
    }
}

fn text<'a>(metadata: &'a MetadataMap, name: &str) -> &'a str {
    metadata.get(name).and_then(|value| value.to_str().ok()).unwrap_or("none")
}

#[test]
fn metadata_passes_both_ways_and_so_does_the_deadline() {
    let origin = Notes::start();
    let gateway = gateway(&origin, "[{ plugin: probe, config: \"headers\" }]");
    let client = Client::of(&gateway);
    let mut request = Request::new(Note::text("metadata"));
    request.metadata_mut().insert("x-word", MetadataValue::from_static("word"));
    let bytes = MetadataValue::from_bytes(&[0, 255, 13, 10]);
    request.metadata_mut().insert_bin("x-some-bin", bytes.clone());
    request.set_timeout(Duration::from_secs(7));
    let answer = client.say(request).unwrap();
    assert_eq!(answer.get_ref().text, "METADATA");
    assert_eq!(text(answer.metadata(), "x-word"), "word");
    assert_eq!(answer.metadata().get_bin("x-some-bin"), Some(&bytes));
    assert_eq!(text(answer.metadata(), "x-timeout"), "7000000u");
    assert_eq!(text(answer.metadata(), "x-probe-response"), "seen");
    assert_eq!(text(answer.metadata(), "x-probe"), "seen", "the filter's own metadata reaches the service");
}

#[test]
fn an_error_keeps_its_code_message_and_metadata() {
    let origin = Notes::start();
    for filters in UNWATCHED_AND_WATCHED {
        let gateway = gateway(&origin, filters);
        let client = Client::of(&gateway);
        // Its head is all there is: status and message stand there, and there is no body.
        let error = client.say(Request::new(Note::text("fail"))).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::FailedPrecondition, "no: é %"), "{filters}");
        assert_eq!(text(error.metadata(), "x-why"), "because", "{filters}");
        assert_eq!(error.details(), b"\x00\x01details", "{filters}");
        let (got, error) = client.call(async |mut grpc| {
            let mut notes = count(&mut grpc, 1003).await.unwrap();
            let mut got = 0;
            loop {
                match notes.message().await {
                    Ok(Some(_)) => got += 1,
                    Ok(None) => panic!("it ends well"),
                    Err(error) => return (got, error),
                }
            }
        });
        assert_eq!((got, error.code(), error.message()), (3, Code::ResourceExhausted, "three is enough"), "{filters}");
    }
}

#[test]
fn the_gateways_own_answers_are_grpc_statuses() {
    let origin = Notes::start();
    let gateway = gateway(&origin, "[]");
    let client = Client::of(&gateway);
    for (method, code) in [
        ("/test.Unknown/Say", Code::Unimplemented),
        ("/test.Nobody/Say", Code::Unavailable),
        ("/test.Notes/Slow", Code::Unavailable),
    ] {
        let error = client.to(method, Request::new(Note::default())).unwrap_err();
        assert_eq!(error.code(), code, "{method}: {error:?}");
    }
    for (status, code) in [(401, Code::Unauthenticated), (403, Code::PermissionDenied), (429, Code::Unavailable)] {
        let gateway = self::gateway(&origin, &format!("[{{ plugin: probe, config: \"reply={status}\" }}]"));
        let error = Client::of(&gateway).say(Request::new(Note::default())).unwrap_err();
        assert_eq!(error.code(), code, "{status}: {error:?}");
        let error =
            Client::of(&gateway).call(async |mut grpc| chat(&mut grpc, tokio_stream::pending()).await.unwrap_err());
        assert_eq!(error.code(), code, "{status} while notes are still sent: {error:?}");
    }
}

#[test]
fn a_call_that_is_cancelled_or_out_of_time_ends_at_the_service() {
    let origin = Notes::start();
    for filters in UNWATCHED_AND_WATCHED {
        let gateway = gateway(&origin, filters);
        let client = Client::of(&gateway);
        client.call(async |mut grpc| {
            let mut notes = count(&mut grpc, 0).await.unwrap();
            assert_eq!(notes.message().await.unwrap().unwrap().number, 1);
        });
        eventually("the endless answer was dropped", || origin.live() == 0);
        client.call(async |mut grpc| {
            let mut answers =
                chat(&mut grpc, tokio_stream::once(Note::text("only")).chain(tokio_stream::pending())).await.unwrap();
            assert_eq!(answers.message().await.unwrap().unwrap().text, "ONLY");
            assert_eq!(origin.live(), 1);
        });
        // The library goes on sending for as long as there is something to come, whoever has stopped listening.
        drop(client);
        eventually("the conversation was dropped", || origin.live() == 0);
        let client = Client::of(&gateway);
        let mut request = Request::new(Note::default());
        request.set_timeout(Duration::from_millis(100));
        let error = client.to("/test.Notes/Slow", request).unwrap_err();
        assert!(matches!(error.code(), Code::Cancelled | Code::DeadlineExceeded), "{error:?}");
        eventually("the slow call was dropped", || origin.live() == 0);
    }
}

/// Row 31 of the threat model.
#[test]
fn a_storm_of_cancelled_calls_leaves_nothing_behind() {
    let origin = Notes::start();
    for filters in UNWATCHED_AND_WATCHED {
        let gateway = gateway(&origin, filters);
        let client = Client::of(&gateway);
        let calls = origin.calls.load(Ordering::SeqCst);
        client.call(async |grpc| {
            for round in 0..1000_u32 {
                let mut grpc = grpc.clone();
                let mut call = pin!(async move {
                    grpc.ready().await.unwrap();
                    count(&mut grpc, 0).await
                });
                // Some are dropped before they were sent, some while they wait, some with an answer.
                let patience = Duration::from_millis(u64::from(round % 4));
                let _dropped = tokio::time::timeout(patience, call.as_mut()).await;
            }
        });
        // The service may have said goodbye to a connection with so many resets, and a call that was on it is not safe to repeat.
        let still_here = || client.say(Request::new(Note::text("still here")));
        eventually("the service answers", || still_here().is_ok_and(|note| note.get_ref().text == "STILL HERE"));
        eventually("all were dropped", || origin.live() == 0);
        eventually("no request is active", || gateway.metric("http_server_active_requests", &[]) == 0.0);
        assert!(origin.calls.load(Ordering::SeqCst) > calls + 100, "the storm reached the service");
    }
}

/// Row 31 of the threat model: what a frame says of its own length is for the service to judge, and its judgement arrives.
#[test]
fn messages_that_lie_about_themselves_get_the_services_answer() {
    let origin = Notes::start();
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    for filters in UNWATCHED_AND_WATCHED {
        let gateway = gateway(&origin, filters);
        for (what, bytes, code) in [
            ("four gibibytes that do not follow", &b"\x00\xff\xff\xff\xffx"[..], Code::OutOfRange),
            ("compressed without saying how", b"\x01\x00\x00\x00\x01x", Code::Internal),
            ("a flag that does not exist", b"\x07\x00\x00\x00\x00", Code::Internal),
            ("half a message", b"\x00\x00\x00\x00\x09half", Code::Internal),
            ("half a length", b"\x00\x00\x00", Code::Internal),
            ("no message", b"", Code::Internal),
            ("what is no note", b"\x00\x00\x00\x00\x02\xff\xff", Code::Internal),
        ] {
            let ask = |h2: portcullis_tests::client::H2| {
                h2.ask("POST", "/test.Notes/Say", &grpc, [Piece::Data(Bytes::copy_from_slice(bytes))]).unwrap()
            };
            let status = |answer: &portcullis_tests::client::H2Answer| {
                let trailers = answer.trailers.as_ref().unwrap_or(&answer.headers);
                trailers.get("grpc-status").map(|status| status.to_str().unwrap().to_owned())
            };
            let direct = ask(portcullis_tests::client::H2::connect(origin.address));
            let through = ask(gateway.h2());
            assert_eq!((through.status, status(&through)), (200, status(&direct)), "{filters} {what}");
            assert_eq!(status(&through), Some(i32::from(code).to_string()), "{filters} {what}");
        }
        let client = Client::of(&gateway);
        assert_eq!(client.say(Request::new(Note::text("next"))).unwrap().get_ref().text, "NEXT", "{filters}");
    }
}
