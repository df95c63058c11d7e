//! A gRPC service: `test.Notes` of `plugins/grpc-json/proto/notes.proto`, as far as the demo needs it.
//!
//! `Say` answers with the note it was given, so what came is what goes: nobody has to know what is in it.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::upstream::LocalExecutor;

/// The service, its messages and its annotations.
pub(super) const DESCRIPTORS: &str = include_str!("../../../../plugins/grpc-json/proto/notes.base64");

/// More than a note of the demo has, with the five bytes in front of it.
const MOST_BYTES: usize = 64 << 10;

/// Serves one connection.
pub(super) async fn serve(stream: TcpStream) {
    let _ended = http2::Builder::new(LocalExecutor).serve_connection(TokioIo::new(stream), service_fn(answer)).await;
}

async fn answer(request: Request<Incoming>) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let is_known = request.uri().path() == "/test.Notes/Say";
    let note = Limited::new(request.into_body(), MOST_BYTES).collect().await;
    // As gRPC numbers them: 0 ok, 3 invalid argument, 12 unimplemented.
    let (status, note) = match note {
        Ok(note) if is_known => ("0", note.to_bytes()),
        Ok(_) => ("12", Bytes::new()),
        Err(_) => ("3", Bytes::new()),
    };
    let trailers =
        HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static(status))]);
    let body = Full::new(note).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(response)
}
