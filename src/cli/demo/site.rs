//! The demo's origin: a small magazine that knows nothing of prices.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

const HTML: &str = "text/html; charset=utf-8";
const TIDES: &str = r#"{
  "harbour": "The Quay",
  "unit": "m",
  "tides": [
    { "time": "04:12", "kind": "high", "height": 5.1 },
    { "time": "10:31", "kind": "low", "height": 0.9 },
    { "time": "16:37", "kind": "high", "height": 5.3 },
    { "time": "22:58", "kind": "low", "height": 0.7 }
  ]
}
"#;

/// Serves until the future is dropped.
pub(super) async fn serve(listener: TcpListener) {
    loop {
        // It serves one gateway on loopback: a failed accept is worth no more than another try.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let service = service_fn(|request: Request<hyper::body::Incoming>| {
            let answer = page(request.method(), request.uri().path());
            async move { Ok::<_, Infallible>(answer) }
        });
        tokio::spawn(async move {
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn page(method: &Method, path: &str) -> Response<Full<Bytes>> {
    let (content_type, body) = match path {
        "/" => (HTML, include_str!("pages/index.html")),
        "/style.css" => ("text/css", include_str!("pages/style.css")),
        "/articles/1" => (HTML, include_str!("pages/1.html")),
        "/articles/2" => (HTML, include_str!("pages/2.html")),
        "/articles/3" => (HTML, include_str!("pages/3.html")),
        "/api/tides" => ("application/json", TIDES),
        _ => return plain(StatusCode::NOT_FOUND, "There is no such page.\n"),
    };
    if method != Method::GET && method != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "Pages can be read, no more.\n");
    }
    let mut answer = plain(StatusCode::OK, body);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn plain(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
