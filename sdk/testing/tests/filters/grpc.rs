//! gRPC: calls and streams, what they carry, and how they end.

use portcullis_sdk::grpc::{GrpcError, Stream};
use portcullis_sdk::{Config, Filter, Host, Next, Request, Response, StartError, Upstream, ms, sleep, start, timeout};
use portcullis_testing::{Gateway, Plugin, Reply, Request as Sent, Running, Seen};

#[derive(Config)]
struct Settings {
    service: Upstream,
}

/// What a request's path asks for, with the outcome as a header.
struct Speaks(Settings);

type Words = Stream<Vec<u8>, Vec<u8>>;

impl Speaks {
    async fn call(&self) -> Result<String, GrpcError> {
        let call = self.0.service.grpc("acme.Words", "Say", &b"hello".to_vec());
        let answer: Vec<u8> = call.metadata("x-who", "filter").timeout(ms(50)).limit(8).send().await?;
        Ok(text(answer))
    }

    async fn open(&self) -> Result<Words, GrpcError> {
        self.0.service.grpc_stream("acme.Words", "Chat").metadata("x-who", "filter").limit(8).open().await
    }

    async fn chat(&self) -> Result<String, GrpcError> {
        let mut stream = self.open().await?;
        let mut said = Vec::new();
        for word in ["one", "two"] {
            stream.send(&word.into())?;
            said.extend(stream.next().await?.map(text));
        }
        stream.finish();
        assert_eq!(stream.send(&b"late".to_vec()), Err(GrpcError::NotSent));
        said.push(stream.metadata().text("x-first").unwrap_or_default());
        said.push(format!("{:?}", stream.next().await?.map(text)));
        said.push(stream.trailers().text("x-last").unwrap_or_default());
        Ok(said.join(" "))
    }

    async fn rest(&self) -> Result<String, GrpcError> {
        let mut stream = self.open().await?;
        stream.finish();
        let mut said = String::new();
        while let Some(word) = stream.next().await? {
            said += &text(word);
        }
        Ok(said)
    }

    async fn late(&self) -> Result<String, GrpcError> {
        let mut stream = self.open().await?;
        sleep(ms(20)).await;
        let mut said = String::new();
        while let Some(word) = stream.next().await? {
            said += &text(word);
        }
        Ok(said)
    }

    async fn impatient(&self) -> Result<String, GrpcError> {
        let mut stream = self.open().await?;
        match timeout(ms(10), stream.next()).await {
            Ok(word) => Ok(word?.map(text).unwrap_or_default()),
            Err(elapsed) => Ok(elapsed.to_string()),
        }
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

impl Filter for Speaks {
    type Config = Settings;

    async fn start(settings: Settings, _: &Host) -> Result<Self, StartError> {
        Ok(Self(settings))
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let said = match request.path().as_str() {
            "/call" => self.call().await,
            "/chat" => self.chat().await,
            "/rest" => self.rest().await,
            "/late" => self.late().await,
            "/impatient" => self.impatient().await,
            _ => Speaks(Settings { service: "nowhere".into() }).call().await,
        };
        request.headers_mut().set("x-said", said.unwrap_or_else(|why| why.to_string()));
        next.run(request).await
    }
}

fn gateway(service: impl FnMut(&Seen) -> Reply + 'static) -> Running {
    let plugin = Plugin::new("speaks", start::<Speaks>).config(r#"{"service":"words"}"#);
    Gateway::new().upstream("words", service).plugin(plugin).start()
}

fn said(path: &str, service: impl FnMut(&Seen) -> Reply + 'static) -> (String, u128) {
    let outcome = gateway(service).send(Sent::get(path));
    (outcome.at_upstream().header("x-said").unwrap().to_owned(), outcome.took.as_millis())
}

#[test]
fn a_call_has_one_message_each_way_and_says_how_it_failed() {
    for (reply, want, took) in [
        (Reply::grpc("hi").after(ms(10)), "hi", 10),
        (Reply::grpc("").after(ms(1)), "", 1),
        (Reply::grpc_status(7, "not you"), "gRPC status 7: not you", 0),
        (Reply::status(503), "gRPC status 14: ", 0),
        (Reply::grpc("hi").after(ms(51)), "gRPC status 14: upstream request timeout", 50),
        (Reply::grpc("more than eight"), "more came than the limit allows", 0),
    ] {
        assert_eq!(said("/call", move |_| reply.clone()), (want.to_owned(), took));
    }
    let mut gateway = gateway(|_| Reply::grpc("hi"));
    gateway.send(Sent::get("/call"));
    let calls = gateway.calls();
    let request = &calls[0].request;
    assert_eq!((calls.len(), request.target(), request.text().as_str()), (1, "/acme.Words/Say", "hello"));
    assert_eq!([request.header("x-who"), request.header("te")], [Some("filter"), Some("trailers")]);
    assert_eq!(request.header("grpc-timeout"), Some("50m"));
    let (unknown, _) = said("/elsewhere", |_| Reply::grpc(""));
    assert!(unknown.starts_with("the gateway knows no upstream `nowhere` that this filter may call; define it"));
}

#[test]
fn a_stream_carries_messages_both_ways_with_what_stands_before_and_behind_them() {
    let echo = |seen: &Seen| match (seen.complete, seen.body.is_empty()) {
        (true, _) => Reply::status(200).trailer("x-last", "bye"),
        (false, true) => Reply::status(200).header("x-first", "well"),
        (false, false) => Reply::grpc(seen.body.to_ascii_uppercase()).after(ms(5)),
    };
    assert_eq!(said("/chat", echo), ("ONE TWO well None bye".to_owned(), 10));
    let three = |seen: &Seen| match seen.complete {
        true => Reply::status(200).chunks(["a", "b", "c"]),
        false => Reply::status(200),
    };
    assert_eq!(said("/rest", three).0, "abc");
    let refuses = |seen: &Seen| if seen.complete { Reply::grpc_status(8, "enough") } else { Reply::status(200) };
    assert_eq!(said("/rest", refuses).0, "gRPC status 8: enough");
    assert_eq!(said("/rest", |_| Reply::status(404)).0, "gRPC status 12: ");
}

#[test]
fn a_stream_that_brings_more_than_is_read_is_broken_off() {
    let sends = |words: &'static [&'static str]| move |_: &Seen| Reply::grpc_status(0, "").chunks(words);
    assert_eq!(said("/late", sends(&["four", "four"])).0, "fourfour", "as much as may wait");
    assert_eq!(said("/late", sends(&["four", "four", "x"])).0, "more came than the limit allows");
    assert_eq!(said("/rest", sends(&["four", "four", "x"])).0, "fourfourx", "what is read does not wait");
}

#[test]
fn a_stream_that_is_dropped_is_broken_off_and_nothing_more_is_heard_of_it() {
    let silent =
        |seen: &Seen| if seen.complete { Reply::grpc("end").after(ms(50)) } else { Reply::grpc("x").after(ms(50)) };
    let mut gateway = gateway(silent);
    let outcome = gateway.send(Sent::get("/impatient"));
    assert_eq!(outcome.at_upstream().header("x-said"), Some("the time is up"));
    gateway.advance(ms(100));
    assert!(gateway.log().is_empty(), "what came later is nobody's");
    assert_eq!(gateway.send(Sent::get("/rest")).at_upstream().header("x-said"), Some("xend"));
}

#[test]
fn hosts_that_refuse_are_values() {
    for (hostcall, path) in [("proxy_grpc_call", "/call"), ("proxy_grpc_stream", "/rest")] {
        let mut gateway = gateway(|_| Reply::grpc(""));
        gateway.fail(hostcall, 10, 1);
        let outcome = gateway.send(Sent::get(path));
        assert_eq!(outcome.at_upstream().header("x-said"), Some("the gateway did not call `words`"));
    }
    for status in (1..=13).chain([255]) {
        let mut gateway = gateway(|_| Reply::grpc("a"));
        for hostcall in ["proxy_grpc_send", "proxy_grpc_close", "proxy_grpc_cancel", "proxy_get_status"] {
            gateway.fail(hostcall, status, 1000);
        }
        for path in ["/impatient", "/late", "/call"] {
            assert_ne!(gateway.send(Sent::get(path)).details, "filter_failed", "{status} {path}");
        }
    }
}
