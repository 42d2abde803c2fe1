//! Documents for machines that the gateway has besides the origin's pages: what it sells, and its key.
//!
//! | path | holds |
//! |---|---|
//! | `/.well-known/x402`, `/.well-known/x402.json`, `/discovery/resources` | [`payment::catalogue`](crate::payment::catalogue) |
//! | `/.well-known/http-message-signatures-directory` | the gateway's key, signed by it |
//! | `/.well-known/did.json` | the same, for those who verify receipts |
//!
//! What the origin serves at such a path goes before ours, unless `discovery.serve` says otherwise.

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};
use serde_json::json;

use super::body::AnswerBody;
use super::core::Shared;
use super::target::Target;
use crate::config::Discovery;
use crate::identity;
use crate::payment::catalogue::Page;
use crate::payment::gateway_key::GatewayKey;
use crate::wire::{directory, entity_tag};

/// How long a signature of the directory stands, and how long it may be cached, seconds.
const DIRECTORY_SECONDS: u64 = 86_400;
/// How long a list may be cached: no longer than most offers stand.
const LIST_CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");
const DIRECTORY_CACHE: HeaderValue = HeaderValue::from_static("public, max-age=43200");

/// One of the documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// What a host sells, whole.
    Manifest,
    /// The same in pages.
    List,
    /// The gateway's public key.
    Directory,
    /// The same as a DID document.
    Did,
}

/// Which document of ours a request may be for. Cheap for all others.
pub fn wanted(shared: &Shared, target: &Target, method: &Method) -> Option<Document> {
    let path = target.path();
    let place = path.strip_prefix("/.well-known/").or_else(|| path.strip_prefix("/discovery/"))?;
    if shared.config.discovery == Discovery::Off || !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let document = match (place, path) {
        ("x402" | "x402.json", _) if path.starts_with("/.well-known/") => Document::Manifest,
        ("resources", "/discovery/resources") => Document::List,
        (_, directory::WELL_KNOWN) => Document::Directory,
        ("did.json", "/.well-known/did.json") => Document::Did,
        _ => return None,
    };
    let needs_key = matches!(document, Document::Directory | Document::Did);
    (!needs_key || shared.key.is_some()).then_some(document)
}

/// Whether the origin has nothing at a path of ours.
pub fn is_absent(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

impl Document {
    /// The document as an answer to a request with these fields.
    pub fn answer(self, shared: &Shared, target: &Target, scheme: &str, asked: &HeaderMap) -> Response<AnswerBody> {
        let (authority, now) = (target.authority(), shared.clock.now_ms() / 1000);
        let base = format!("{scheme}://{authority}");
        let made = match (self, &shared.key) {
            (Document::Manifest, _) => Made::json(shared.catalogue.manifest(target.host(), &base), LIST_CACHE),
            (Document::List, _) => match Page::parse(target.query().unwrap_or("")) {
                Ok(page) => Made::json(shared.catalogue.list(target.host(), &base, page), LIST_CACHE),
                Err(message) => {
                    let body = json!({"error": "invalid_request", "message": message}).to_string();
                    Made { status: StatusCode::BAD_REQUEST, ..Made::json(body, HeaderValue::from_static("no-store")) }
                }
            },
            (Document::Directory, Some(key)) => Made::directory(key, authority, now),
            (Document::Did, Some(key)) => {
                let kind = HeaderValue::from_static("application/did+json");
                Made { kind, ..Made::json(key.did_document(authority).to_string(), DIRECTORY_CACHE) }
            }
            // `wanted` offers them with a key only.
            (Document::Directory | Document::Did, None) => Made::json("{}".to_owned(), LIST_CACHE),
        };
        made.answer(asked)
    }
}

/// A document, made for one request.
struct Made {
    status: StatusCode,
    kind: HeaderValue,
    cache: HeaderValue,
    body: String,
    fields: Vec<(HeaderName, String)>,
}

impl Made {
    fn json(body: String, cache: HeaderValue) -> Made {
        let kind = HeaderValue::from_static("application/json");
        Made { status: StatusCode::OK, kind, cache, body, fields: Vec::new() }
    }

    fn directory(key: &GatewayKey, authority: &str, now: u64) -> Made {
        let (body, media_type) = identity::response_parts(&[key.public_jwk()]);
        let signed = key.directory_fields(authority, body.as_bytes(), now, DIRECTORY_SECONDS);
        let fields = vec![
            (HeaderName::from_static("content-digest"), signed.content_digest),
            (HeaderName::from_static("signature-input"), signed.signature_input),
            (HeaderName::from_static("signature"), signed.signature),
        ];
        let kind = HeaderValue::from_static(media_type);
        Made { kind, fields, ..Made::json(body, DIRECTORY_CACHE) }
    }

    fn answer(self, asked: &HeaderMap) -> Response<AnswerBody> {
        let tag = entity_tag::of(self.body.as_bytes());
        let is_known = self.status == StatusCode::OK && entity_tag::is_known(&tag, asked);
        let mut response = Response::new(AnswerBody::made(if is_known { String::new() } else { self.body }));
        *response.status_mut() = if is_known { StatusCode::NOT_MODIFIED } else { self.status };
        let headers = response.headers_mut();
        if !is_known {
            headers.insert(header::CONTENT_TYPE, self.kind);
        }
        headers.insert(header::CACHE_CONTROL, self.cache);
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        for (name, value) in self.fields.into_iter().chain([(header::ETAG, tag)]) {
            // Base64, digits, and a host that was checked.
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        response
    }
}
