//! `portcullis demo`: two tenants, the built-in policies, a tenant's own module, and the origins they need, in one process.
//!
//! The gateway is the one `portcullis run` starts, on a configuration written to a directory that is printed, so that it can be
//! looked at, changed and run again.

mod notes;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{fs, io, thread};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};

const CONFIG: &str = include_str!("demo/portcullis.yaml");
/// Where it listens in that configuration.
const GATEWAY: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:9901";
const JWKS: &str = include_str!("demo/jwks.json");
/// Signed for this demo with a key that no longer exists; good until the year 2100, and good for nothing else.
const TOKEN: &str = include_str!("demo/token.txt");

/// The demo's configuration, with its origins running.
pub(crate) struct Demo {
    /// Where the configuration is.
    pub(crate) config: PathBuf,
}

/// Where the demo listens; both addresses stand in its configuration.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Addresses {
    /// The address and port to serve requests on; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS", default_value = GATEWAY)]
    bind: SocketAddr,
    /// The address and port of the gateway's own pages
    #[arg(long, value_name = "ADDRESS", default_value = ADMIN)]
    admin: SocketAddr,
}

/// Starts the origins and writes the configuration that sends requests to them.
pub(crate) fn prepare(addresses: Addresses) -> io::Result<Demo> {
    let directory = std::env::temp_dir().join(format!("portcullis-demo-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let banner = crate::builtin::demo_module().ok_or_else(|| {
        io::Error::other("this binary was built without its plugins; run `cargo xtask plugins`, then build again")
    })?;
    fs::write(directory.join("banner.wasm"), banner)?;
    fs::write(directory.join("notes.base64"), notes::DESCRIPTORS)?;
    let mut config = CONFIG.to_owned();
    let json = |origin: Origin| serve(move |stream| serve_json(origin, stream));
    for (variable, origin) in [
        ("DEMO_ORDERS", json(orders)?),
        ("DEMO_PROFILES", json(profiles)?),
        ("DEMO_IDP", json(idp)?),
        ("DEMO_NOTES", serve(notes::serve)?),
    ] {
        config = config.replace(&format!("${{env:{variable}}}"), &origin.to_string());
    }
    for (usual, here) in [(GATEWAY, addresses.bind), (ADMIN, addresses.admin)] {
        config = config.replace(usual, &here.to_string());
    }
    let path = directory.join("portcullis.yaml");
    fs::write(&path, config)?;
    Ok(Demo { config: path })
}

/// What to try, and what each shows. The addresses are those of the configuration.
pub(crate) fn guide(gateway: SocketAddr, admin: Option<SocketAddr>, config: &Path) -> String {
    let token = TOKEN.trim();
    let curl = |host: &str, rest: &str| format!("  curl -i -H 'Host: {host}' {rest}");
    let mut lines = vec![
        "Portcullis is serving two tenants. Try, in another terminal:".to_owned(),
        String::new(),
        "1. acme's orders need a token: 401, and WWW-Authenticate asks for one".to_owned(),
        curl("acme.test", &format!("http://{gateway}/orders/1")),
        String::new(),
        "2. With one: 200, and the origin is told who it is in x-user. The key came from acme's identity provider"
            .to_owned(),
        curl("acme.test", &format!("-H 'Authorization: Bearer {token}' http://{gateway}/orders/1")),
        String::new(),
        "3. Five requests where three are allowed: 200 200 200 429 429".to_owned(),
        format!(
            "  for i in 1 2 3 4 5; do curl -s -o /dev/null -w '%{{http_code}} ' -H 'Host: acme.test' http://{gateway}/status; done; echo"
        ),
        String::new(),
        "4. The origin's password_hash and x-powered-by are gone, mail is called email".to_owned(),
        curl("acme.test", &format!("http://{gateway}/profiles/7")),
        String::new(),
        "5. One reply from three calls, the second made of the first one's answer. The third fails: its default stands in".to_owned(),
        curl("acme.test", &format!("http://{gateway}/home")),
        String::new(),
        "6. A jq program makes {\"count\":2,\"sum\":19.5} of the origin's list".to_owned(),
        curl("acme.test", &format!("http://{gateway}/sums")),
        String::new(),
        "7. REST to gRPC and back: acme's notes are a gRPC service, asked and answered in JSON".to_owned(),
        curl("acme.test", &format!("-H 'content-type: application/json' -d '{{\"text\":\"hello\"}}' http://{gateway}/notes")),
        String::new(),
        "8. globex has a module of its own: no token asked for, and x-policy-of says who answered".to_owned(),
        curl("globex.test", &format!("http://{gateway}/orders/1")),
        String::new(),
    ];
    if let Some(admin) = admin {
        lines.push(format!("Metrics: curl -s http://{admin}/metrics   What is running: curl -s http://{admin}/config"));
    }
    lines.push(format!("The configuration: {}   Stop with Ctrl-C.", config.display()));
    lines.join("\n")
}

/// Answers a path; the second argument is the header in which the gateway says who the user is.
type Origin = fn(&str, Option<&str>) -> Reply;

struct Reply {
    status: StatusCode,
    body: String,
}

fn ok(body: impl Into<String>) -> Reply {
    Reply { status: StatusCode::OK, body: body.into() }
}

fn orders(path: &str, user: Option<&str>) -> Reply {
    match path {
        "/orders" | "/sums" => ok(r#"[{"id":1,"total":"12.50"},{"id":2,"total":"7.00"}]"#),
        "/broken" => {
            Reply { status: StatusCode::INTERNAL_SERVER_ERROR, body: r#"{"error":"out of order"}"#.to_owned() }
        }
        _ => ok(format!("{{\"origin\":\"orders\",\"path\":\"{path}\",\"user\":\"{}\"}}\n", user.unwrap_or("nobody"))),
    }
}

fn profiles(path: &str, _: Option<&str>) -> Reply {
    if path.starts_with("/names/") {
        return ok(r#"{"id":7,"name":"Ada"}"#);
    }
    ok(r#"{"id":7,"name":"Ada","mail":"ada@acme.test","password_hash":"5f4dcc3b5aa765d61d8327deb882cf99"}"#)
}

fn idp(path: &str, _: Option<&str>) -> Reply {
    match path {
        "/jwks.json" => ok(JWKS),
        _ => Reply { status: StatusCode::NOT_FOUND, body: "{}".to_owned() },
    }
}

/// Starts an origin on a free port, on a thread of its own.
fn serve<F: Future<Output = ()> + 'static>(
    connection: impl Fn(TcpStream) -> F + Send + 'static,
) -> io::Result<SocketAddr> {
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    thread::Builder::new().name("demo-origin".to_owned()).spawn(move || {
        let runtime = Builder::new_current_thread().enable_io().build_local(LocalOptions::default())?;
        runtime.block_on(accept(socket, connection))
    })?;
    Ok(address)
}

async fn accept<F: Future<Output = ()> + 'static>(
    socket: std::net::TcpListener,
    connection: impl Fn(TcpStream) -> F,
) -> io::Result<()> {
    let listener = TcpListener::from_std(socket)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::task::spawn_local(connection(stream));
    }
}

async fn serve_json(origin: Origin, stream: TcpStream) {
    let service = service_fn(move |request| answer(origin, request));
    let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(origin: Origin, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let user = request.headers().get("x-user").and_then(|user| user.to_str().ok());
    let reply = origin(request.uri().path(), user);
    let mut response = Response::new(Full::from(reply.body));
    *response.status_mut() = reply.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(HeaderName::from_static("x-powered-by"), HeaderValue::from_static("demo-origin"));
    Ok(response)
}
