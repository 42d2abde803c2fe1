//! The agent's key directory: what it serves so that others can verify its signatures.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::wire::directory::{Directory, MEDIA_TYPE, WELL_KNOWN};
use crate::wire::entity_tag;
use crate::wire::jwk::Jwk;

/// Open connections; more wait.
const CONNECTIONS_MAX: usize = 256;
/// For the head of a request, and between two requests.
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// For a whole connection: nobody needs one for longer.
const CONNECTION_WAIT: Duration = Duration::from_secs(60);
/// After a failed accept, which mostly means that descriptors ran out.
const ACCEPT_WAIT: Duration = Duration::from_millis(100);

/// A directory's body and its entity tag.
#[derive(Debug, Clone)]
pub struct Published {
    body: Bytes,
    etag: HeaderValue,
}

impl Published {
    /// Publishes these public keys.
    pub fn new(keys: &[Jwk]) -> Published {
        // A private half does not get out, whatever it came in with.
        let keys: Vec<Jwk> = keys.iter().map(|key| Jwk { d: None, ..key.clone() }).collect();
        // Strings and numbers only: this cannot fail.
        let body = serde_json::to_string(&Directory::of(&keys)).unwrap_or_default();
        let etag = entity_tag::of(body.as_bytes());
        let etag = HeaderValue::try_from(etag).unwrap_or(HeaderValue::from_static("\"1\""));
        Published { body: body.into(), etag }
    }

    /// The JSON.
    pub fn json(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_default()
    }

    /// The answer to a request: the directory at its well-known path, 404 elsewhere, 405 for anything but GET and HEAD.
    pub fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let empty = |status| {
            let mut answer = Response::new(Full::default());
            *answer.status_mut() = status;
            answer
        };
        if path != WELL_KNOWN {
            return empty(StatusCode::NOT_FOUND);
        }
        if method != Method::GET && method != Method::HEAD {
            let mut answer = empty(StatusCode::METHOD_NOT_ALLOWED);
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        let mut answer = if self.etag.to_str().is_ok_and(|tag| entity_tag::is_known(tag, headers)) {
            empty(StatusCode::NOT_MODIFIED)
        } else {
            let mut answer = Response::new(Full::new(self.body.clone()));
            answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
            answer
        };
        let fields = answer.headers_mut();
        fields.insert(header::ETAG, self.etag.clone());
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=86400"));
        fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        answer
    }
}

/// Serves a directory until the future is dropped.
pub async fn serve(listener: TcpListener, published: Published) {
    let (published, room) = (Arc::new(published), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let stream: io::Result<_> = listener.accept().await;
        let Ok((stream, _)) = stream else {
            tokio::time::sleep(ACCEPT_WAIT).await;
            continue;
        };
        let published = published.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let answer = published.answer(request.method(), request.uri().path(), request.headers());
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT);
            let connection = server.serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(CONNECTION_WAIT, connection).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::jwk::signing_key_json;

    fn published() -> Published {
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        Published::new(&[serde_json::from_str(&signing_key_json(&key)).unwrap()])
    }

    #[test]
    fn only_the_public_half_is_published() {
        let json = published().json().to_owned();
        assert!(json.contains("\"x\":") && !json.contains("\"d\""), "{json}");
        assert_eq!(Directory::parse(json.as_bytes(), 1, false, |_, e| panic!("{e}")).unwrap().len(), 1);
    }

    #[test]
    fn a_known_tag_is_not_sent_again() {
        let published = published();
        let tag = published.etag.to_str().unwrap().to_owned();
        let status = |tags: &str| {
            let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, tags.parse().unwrap())]);
            published.answer(&Method::GET, WELL_KNOWN, &headers).status().as_u16()
        };
        for tags in [&tag, "*", &format!("W/{tag}"), &format!("\"other\", {tag}")] {
            assert_eq!(status(tags), 304, "{tags}");
        }
        for tags in ["\"other\"", "", &tag[1..]] {
            assert_eq!(status(tags), 200, "{tags}");
        }
    }

    #[test]
    fn nothing_else_is_there() {
        let status =
            |method: &Method, path: &str| published().answer(method, path, &HeaderMap::new()).status().as_u16();
        assert_eq!(status(&Method::GET, "/"), 404);
        assert_eq!(status(&Method::POST, "/"), 404);
        assert_eq!(status(&Method::POST, WELL_KNOWN), 405);
        assert_eq!(status(&Method::HEAD, WELL_KNOWN), 200);
    }
}
