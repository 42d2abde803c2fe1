//! An agent: its key, its directory on a port of its own, and signed requests that a test can bend.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer, SigningKey};
use http::{HeaderMap, HeaderName};
use tollgate::wire::directory::{Directory, MEDIA_TYPE, WELL_KNOWN};
use tollgate::wire::jwk::Jwk;
use tollgate::wire::signature::{Component, ComponentName, Part, RequestView, SignatureDraft, SignatureParams};

use super::client::{Answer, exchange};
use super::keys::OtherKey;
use super::origin::Origin;

pub struct Agent {
    pub key: SigningKey,
    /// In its place, where there is one.
    pub other: Option<OtherKey>,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    pub directory: Origin,
}

/// Makes keys that differ within one test run.
static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

impl Agent {
    pub fn start() -> Agent {
        Agent::start_with(None)
    }

    /// One that signs with a key of another kind.
    pub fn start_with(other: Option<OtherKey>) -> Agent {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&NEXT_KEY.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let key = SigningKey::from_bytes(&seed);
        let body = serde_json::to_string(&Directory::of(&[public(&key, other.as_ref())])).unwrap();
        let directory = Origin::scripted(move |seen, socket| {
            let (status, body) =
                if seen.path() == WELL_KNOWN { ("200 OK", body.as_str()) } else { ("404 Not Found", "") };
            let length = body.len();
            write!(socket, "HTTP/1.1 {status}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {length}\r\n\r\n{body}")
                .is_ok()
        });
        Agent { key, other, url: format!("http://{}", directory.addr), directory }
    }

    pub fn thumbprint(&self) -> String {
        public(&self.key, self.other.as_ref()).public_key(false).unwrap().thumbprint().to_owned()
    }

    /// GET, take the offer, sign, send again; whatever comes instead of an offer is the answer.
    pub fn buy(&self, gateway: SocketAddr, path: &str) -> Answer {
        let authority = gateway.to_string();
        let offer = super::client::get(gateway, path);
        if offer.status != 402 {
            return offer;
        }
        let id = offer.json()["accepts"][0]["extras"]["id"].as_str().unwrap().to_owned();
        exchange(gateway, self.signed(&authority, "GET", path, &id).head())
    }

    /// A signed request for a fresh offer.
    pub fn request(&self, gateway: SocketAddr, method: &str, path: &str) -> Signed {
        let authority = gateway.to_string();
        let offer =
            exchange(gateway, format!("{method} {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n"));
        assert_eq!(offer.status, 402, "{offer:?}");
        let id = match method {
            // An answer to HEAD has no body; the field says the same.
            "HEAD" => field_offer(&offer)["accepts"][0]["extra"]["id"].as_str().unwrap().to_owned(),
            _ => offer.json()["accepts"][0]["extras"]["id"].as_str().unwrap().to_owned(),
        };
        self.signed(&authority, method, path, &id)
    }

    /// A signed request whose payment stands in another field than `Payment`.
    pub fn signed_in(&self, carrier: &'static str, gateway: SocketAddr, path: &str, payment: &str) -> Signed {
        self.signed(&gateway.to_string(), "GET", path, "").with(|r| {
            (r.carrier, r.payment) = (carrier, payment.to_owned());
            r.covers = ["@authority", &carrier.to_ascii_lowercase(), "signature-agent;sig1"].map(String::from).to_vec();
        })
    }

    /// A signed request for this id.
    pub fn signed(&self, authority: &str, method: &str, path: &str, id: &str) -> Signed {
        Signed {
            key: self.key.clone(),
            other: self.other.clone(),
            method: method.into(),
            authority: authority.into(),
            target: path.into(),
            carrier: "Payment",
            payment: format!(r#"scheme="deferred", network="tollgate:deferred", id="{id}""#),
            agent: format!(r#"sig1="{}""#, self.url),
            covers: ["@authority", "@method", "@path", "payment", "signature-agent;sig1"].map(String::from).to_vec(),
            created: now(),
            expires: now() + 60,
            keyid: self.thumbprint(),
            tag: "web-bot-auth".into(),
            alg: None,
            nonce: None,
            extra: String::new(),
            signed: Vec::new(),
            label: "sig1".into(),
        }
    }
}

/// The decoded `PAYMENT-REQUIRED`.
pub fn field_offer(answer: &Answer) -> serde_json::Value {
    let field = answer.header("payment-required").expect("no PAYMENT-REQUIRED");
    serde_json::from_slice(&STANDARD.decode(field).unwrap()).unwrap()
}

/// A request that will be signed as it then stands.
#[derive(Clone, Debug)]
pub struct Signed {
    pub key: SigningKey,
    /// Signs in its place, where there is one.
    pub other: Option<OtherKey>,
    pub method: String,
    pub authority: String,
    /// Path and query.
    pub target: String,
    /// The field that carries the payment.
    pub carrier: &'static str,
    pub payment: String,
    pub agent: String,
    /// `@method`, `payment`, or `signature-agent;LABEL` for a member; more in `component`.
    pub covers: Vec<String>,
    pub created: i64,
    pub expires: i64,
    pub keyid: String,
    pub tag: String,
    pub alg: Option<String>,
    pub nonce: Option<String>,
    /// More header lines, each ending in CRLF; not signed.
    pub extra: String,
    /// More fields, which `covers` may name.
    pub signed: Vec<(String, String)>,
    pub label: String,
}

impl Signed {
    /// Changes the request before it is signed.
    pub fn with(mut self, change: impl FnOnce(&mut Signed)) -> Signed {
        change(&mut self);
        self
    }

    /// The three signature fields and the payment, as (name, value).
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_bytes(self.carrier.as_bytes()).unwrap(), self.payment.parse().unwrap());
        headers.insert("signature-agent", self.agent.parse().unwrap());
        for (name, value) in &self.signed {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.target.as_str(), None),
        };
        let view = RequestView {
            method: &self.method,
            scheme: "http",
            authority: &self.authority,
            path,
            query,
            headers: &headers,
        };
        let components = self.covers.iter().map(|c| component(c)).collect();
        let params = SignatureParams {
            created: Some(self.created),
            expires: Some(self.expires),
            keyid: Some(self.keyid.clone()),
            tag: Some(self.tag.clone()),
            nonce: self.nonce.clone(),
            alg: self.alg.clone(),
        };
        let draft = SignatureDraft { label: self.label.clone(), components, params };
        let (input, base) = draft.prepare(&view).unwrap();
        let signature = match &self.other {
            Some(other) => STANDARD.encode(other.sign(base.as_bytes())),
            None => STANDARD.encode(self.key.sign(base.as_bytes()).to_bytes()),
        };
        vec![
            (self.carrier, self.payment.clone()),
            ("Signature-Agent", self.agent.clone()),
            ("Signature-Input", input),
            ("Signature", format!("{}=:{signature}:", self.label)),
        ]
    }

    /// The whole head with `Connection: close`.
    pub fn head(&self) -> String {
        self.head_with("Connection: close\r\n")
    }

    /// The whole head with these lines besides.
    pub fn head_with(&self, lines: &str) -> String {
        let fields: String = self.fields().iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let signed: String = self.signed.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let Signed { method, target, authority, extra, .. } = self;
        format!("{method} {target} HTTP/1.1\r\nHost: {authority}\r\n{fields}{signed}{extra}{lines}\r\n")
    }
}

fn public(key: &SigningKey, other: Option<&OtherKey>) -> Jwk {
    other.map_or_else(|| Jwk::from_public(&key.verifying_key()), OtherKey::jwk)
}

/// `@method`, `@query-param?name`, `field`, `field;member`, `field!sf`, `field!bs`.
fn component(text: &str) -> Component {
    if let Some(name) = text.strip_prefix("@query-param?") {
        return Component::whole(ComponentName::QueryParam(name.to_owned()));
    }
    let (name, part) = match text.split_once([';', '!']) {
        Some((name, "sf")) if text.contains('!') => (name, Part::Strict),
        Some((name, "bs")) if text.contains('!') => (name, Part::Bytes),
        Some((name, key)) => (name, Part::Member(key.to_owned())),
        None => (text, Part::Whole),
    };
    let name = match name {
        "@method" => ComponentName::Method,
        "@target-uri" => ComponentName::TargetUri,
        "@authority" => ComponentName::Authority,
        "@scheme" => ComponentName::Scheme,
        "@path" => ComponentName::Path,
        "@query" => ComponentName::Query,
        "@request-target" => ComponentName::RequestTarget,
        field => ComponentName::Field(HeaderName::from_bytes(field.as_bytes()).unwrap()),
    };
    Component { name, part }
}
