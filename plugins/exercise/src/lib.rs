//! What the tests of a running gateway ask of the SDK: the request's path says what.
//!
//! | path | does |
//! | --- | --- |
//! | `/length` | puts the length of either body into a header of its message, after having read it |
//! | `/say` | a gRPC call, whose answer is a header of the request |
//! | `/chat` | two messages on a gRPC stream, and what comes back, with how it ended |
//! | `/count` | reads a stream of the service's to its end |
//! | `/last` | how the exchange before this one ended |

use std::cell::RefCell;
use std::rc::Rc;

use portcullis_sdk::grpc::GrpcError;
use portcullis_sdk::{Bodies, Config, Ended, Filter, Host, Next, Request, Response, StartError, Upstream};

/// Where it speaks to.
#[derive(Config)]
struct Settings {
    /// A service `test.Notes`.
    notes: Option<Upstream>,
}

struct Exercise {
    settings: Settings,
    last: Rc<RefCell<String>>,
}

const SERVICE: &str = "test.Notes";
const MOST_BYTES: usize = 64 * 1024;

impl Filter for Exercise {
    type Config = Settings;
    const BODIES: Bodies = Bodies::BOTH;
    const HOLDS_HEADERS: bool = true;
    const LOGS: bool = true;

    async fn start(settings: Settings, _: &Host) -> Result<Self, StartError> {
        Ok(Self { settings, last: Rc::default() })
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        let (path, last) = (request.path(), Rc::clone(&self.last));
        match path.as_str() {
            "/last" => return Response::new(200).with_body(self.last.borrow().as_str()),
            "/length" => return length(request, next).await,
            _ => {}
        }
        request.on_log(move |ended| _ = last.replace(line(&path, ended)));
        let said = self.speak(&request.path()).await;
        request.headers_mut().set("x-said", said.unwrap_or_else(|why| why.to_string().escape_default().to_string()));
        next.run(request).await
    }
}

portcullis_sdk::export_filter!(Exercise);

/// As a log would have it.
fn line(path: &str, ended: &Ended) -> String {
    let server = ended.response_headers().text("server").unwrap_or_default();
    format!("{path} {} {} {server}", ended.status(), ended.details())
}

async fn length(mut request: Request, next: Next) -> Response {
    match request.body().collect(MOST_BYTES).await {
        Ok(body) => request.headers_mut().set("x-length", body.len().to_string()),
        Err(_) => return Response::problem(413, "body_too_large"),
    }
    let mut response = next.run(request).await;
    match response.body().collect(MOST_BYTES).await {
        Ok(body) => response.headers_mut().set("x-length", body.len().to_string()),
        Err(_) => return Response::problem(502, "response_too_large"),
    }
    response
}

impl Exercise {
    async fn speak(&self, path: &str) -> Result<String, GrpcError> {
        let Some(notes) = &self.settings.notes else { return Ok(String::new()) };
        match path {
            "/say" => notes.grpc(SERVICE, "Say", &note("hello")).send().await.map(text),
            "/fail" => notes.grpc(SERVICE, "Say", &note("fail")).send().await.map(text),
            "/chat" => {
                let mut stream = notes.grpc_stream::<Vec<u8>, Vec<u8>>(SERVICE, "Chat").open().await?;
                let mut said = Vec::new();
                for word in ["one", "two"] {
                    stream.send(&note(word))?;
                    said.extend(stream.next().await?.map(text));
                }
                stream.finish();
                said.push(format!("{}", stream.next().await?.is_none()));
                said.extend(stream.metadata().text("content-type"));
                said.extend(stream.trailers().text("grpc-status"));
                Ok(said.join(" "))
            }
            "/count" => {
                let mut stream = notes.grpc_stream::<Vec<u8>, Vec<u8>>(SERVICE, "Count").open().await?;
                // The number 100, in the field of that.
                stream.send(&vec![0x10, 100])?;
                stream.finish();
                let mut count = 0;
                while stream.next().await?.is_some() {
                    count += 1;
                }
                Ok(count.to_string())
            }
            _ => Ok(String::new()),
        }
    }
}

/// A message with a text in its first field.
fn note(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    [&[0x0a, length], text.as_bytes()].concat()
}

/// The text that a message begins with.
fn text(note: Vec<u8>) -> String {
    let text = note.get(1).and_then(|length| note.get(2..2 + usize::from(*length)));
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}
