//! Key directories, read over real sockets: what is taken, what is refused, and where no connection goes.

#[path = "identity/cache.rs"]
mod cache;
#[path = "identity/signed.rs"]
mod signed;
#[path = "identity/ssrf.rs"]
mod ssrf;
#[path = "identity/support.rs"]
mod support;

use std::{fs, sync::Arc, time::Duration};

use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use support::{Gate, Names, Reply, Site, allow, directory, directory_with, key, ok, pending, said, soon, thumbprint};
use tokio_rustls::TlsAcceptor;
use tollgate::{
    config::Config,
    identity::Lookup,
    wire::{
        agent_url::AgentUrl,
        jwk::{Jwk, RFC9421_TEST_KEY_X},
    },
};

/// What is said about the key of an agent whose directory answers so.
async fn said_of(reply: Reply, identity: &str) -> String {
    let site = Site::start(reply).await;
    let gate = Gate::start(&format!("{}\n{identity}", allow(&[&site])));
    said(gate.look(&site.agent(), &thumbprint(&key(1))).await)
}

#[track_caller]
fn refused(said: &str, why: &str) {
    assert!(said.contains(why) && !said.contains("127.0.0.1"), "{said}");
}

#[tokio::test]
async fn a_key_is_read_with_one_plain_get() {
    let mut site = Site::of(&[key(1), key(2)]).await;
    let gate = Gate::of(&[&site]);
    let Lookup::Key(found) = gate.look(&site.agent(), &thumbprint(&key(2))).await else { panic!("not found") };
    assert_eq!(found.public.thumbprint(), thumbprint(&key(2)));
    assert_eq!(*found.record.thumbprint, thumbprint(&key(2)));
    assert_eq!(*found.record.agent, site.agent().to_string());
    assert_eq!(*found.record.jwk, found.public.canonical_jwk());
    assert_ne!(found.record.directory_digest, [0; 32]);
    let head = site.requests.recv().await.unwrap();
    let expect = format!(
        "GET /.well-known/http-message-signatures-directory HTTP/1.1\r\nhost: {}\r\n\
         accept: application/http-message-signatures-directory+json\r\naccept-encoding: identity\r\n\
         user-agent: tollgate/{}\r\nconnection: close\r\n\r\n",
        site.address,
        env!("CARGO_PKG_VERSION"),
    );
    assert_eq!(head, expect);
    // The other key of the directory needs no further fetch.
    assert_eq!(said(gate.look(&site.agent(), &thumbprint(&key(1))).await), thumbprint(&key(1)));
    assert_eq!(site.hits(), 1);
}

#[tokio::test]
async fn only_200_counts_and_no_redirect_is_followed() {
    for status in [301, 302, 303, 307, 308] {
        let canary = Site::of(&[key(1)]).await;
        let location = format!("http://{}/.well-known/http-message-signatures-directory", canary.address);
        let reply = format!("HTTP/1.1 {status} R\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        refused(&said_of(Reply::Bytes(reply.into_bytes()), "").await, &format!("answered {status}"));
        canary.untouched().await;
    }
    for status in ["201", "204", "206", "304", "404", "410", "429", "500", "503"] {
        let whole = String::from_utf8(directory(&[key(1)])).unwrap();
        let reply = whole.replacen("200", status, 1).into_bytes();
        refused(&said_of(Reply::Bytes(reply), "").await, &format!("answered {status}"));
    }
}

#[tokio::test]
async fn media_type_and_coding_are_checked() {
    let body = tollgate::identity::response_parts(&[key(1)]).0;
    for fields in [
        "Content-Type: application/json\r\n",
        "Content-Type: Application/JWK-Set+JSON; charset=utf-8\r\n",
        "Content-Type: application/json\r\nContent-Encoding: identity\r\n",
    ] {
        assert_eq!(said_of(Reply::Bytes(ok(fields, &body)), "").await, thumbprint(&key(1)), "{fields}");
    }
    for fields in [
        "",
        "Content-Type: text/html\r\n",
        "Content-Type: application/jsonp\r\n",
        "Content-Type: text/html, application/json\r\n",
        "Content-Type: text/html\r\nContent-Type: application/json\r\n",
    ] {
        refused(&said_of(Reply::Bytes(ok(fields, &body)), "").await, "media type");
    }
    for coding in ["gzip", "br", "identity, gzip"] {
        let fields = format!("Content-Type: application/json\r\nContent-Encoding: {coding}\r\n");
        refused(&said_of(Reply::Bytes(ok(&fields, &body)), "").await, "content coding");
    }
}

#[tokio::test]
async fn a_directory_has_a_size() {
    let body = tollgate::identity::response_parts(&[key(1)]).0;
    let json = "Content-Type: application/json\r\n";
    let fits = format!("{body}{}", " ".repeat(1024 - body.len()));
    let beyond = format!("{fits} ");
    let until_close = |body: &str| Reply::Bytes(format!("HTTP/1.1 200 OK\r\n{json}\r\n{body}").into_bytes());
    let limit = "directory_bytes = 1024";
    assert_eq!(said_of(Reply::Bytes(ok(json, &fits)), limit).await, thumbprint(&key(1)));
    assert_eq!(said_of(until_close(&fits), limit).await, thumbprint(&key(1)));
    refused(&said_of(Reply::Bytes(ok(json, &beyond)), limit).await, "longer than 1024 bytes");
    refused(&said_of(until_close(&beyond), limit).await, "longer than 1024 bytes");
    // The promised length is enough: not a byte of it is waited for.
    let promise = format!("HTTP/1.1 200 OK\r\n{json}Content-Length: 99999999\r\n\r\n").into_bytes();
    refused(&said_of(Reply::Hang(promise), limit).await, "longer than 1024 bytes");
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let site =
        Site::start(Reply::Endless(head, b"400\r\n".iter().copied().chain([b' '; 1024]).chain(*b"\r\n").collect()))
            .await;
    let gate = Gate::of(&[&site]);
    refused(&said(gate.look(&site.agent(), "k").await), "longer than 65536 bytes");
    soon(site.closed.notified()).await;
    // A head without end, and one of countless fields.
    let endless = Reply::Endless(b"HTTP/1.1 200 OK\r\nA: ".to_vec(), vec![b'a'; 1024]);
    refused(&said_of(endless, "").await, "no complete HTTP/1.1 message");
    let fields = "A: b\r\n".repeat(100);
    let reply = ok(&format!("Content-Type: application/json\r\n{fields}"), "{\"keys\":[]}");
    refused(&said_of(Reply::Bytes(reply), "").await, "no complete HTTP/1.1 message");
}

#[tokio::test]
async fn a_directory_has_a_number_of_keys() {
    let keys: Vec<Jwk> = (1..=4).map(key).collect();
    assert_eq!(said_of(Reply::Bytes(directory(&keys)), "directory_keys = 4").await, thumbprint(&key(1)));
    refused(&said_of(Reply::Bytes(directory(&keys)), "directory_keys = 3").await, "4 keys; at most 3");
}

#[tokio::test]
async fn what_is_no_directory_is_not_quoted() {
    for body in ["", "{}", "[]", "{\"keys\": \"password\"}", "{\"keys\": [", "password"] {
        let said = said_of(Reply::Bytes(ok("Content-Type: application/json\r\n", body)), "").await;
        refused(&said, "not JSON of the shape");
        assert!(!said.contains("password"), "{said}");
    }
    for reply in
        ["", "password\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{}"]
    {
        refused(&said_of(Reply::Bytes(reply.into()), "").await, "no complete HTTP/1.1 message");
    }
}

#[tokio::test]
async fn the_deadline_covers_every_step() {
    let short = |config: &mut Config| config.identity.fetch = Duration::from_millis(300);
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{".to_vec();
    for reply in [
        Reply::Hang(Vec::new()),
        Reply::Hang(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Reply::Hang(head),
        // Interim answers without end keep nobody busy for longer.
        Reply::Endless(Vec::new(), b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec()),
    ] {
        let site = Site::start(reply).await;
        let gate = Gate::with(&allow(&[&site]), short, |service| service);
        refused(&said(gate.look(&site.agent(), "k").await), "not read within 300 ms");
        soon(site.closed.notified()).await;
    }
    // The resolver hangs; TLS hangs.
    let agent = AgentUrl::parse("https://signer.example.com").unwrap();
    let gate = Gate::with("allow = [\"any\"]", short, |s| s.resolving(Arc::new(Names(|_: &str, _| pending()))));
    refused(&said(gate.look(&agent, "k").await), "not read within 300 ms");
    let site = Site::start(Reply::Hang(Vec::new())).await;
    let agent = AgentUrl::parse(&format!("https://{}", site.address)).unwrap();
    let gate = Gate::with(&format!("allow = [\"{agent}\"]"), short, |s| s);
    refused(&said(gate.look(&agent, "k").await), "not read within 300 ms");
}

#[tokio::test]
async fn a_test_key_is_refused_unless_allowed() {
    let jwk: Jwk =
        serde_json::from_value(serde_json::json!({"kty": "OKP", "crv": "Ed25519", "x": RFC9421_TEST_KEY_X})).unwrap();
    let site = Site::of(&[jwk.clone(), key(1)]).await;
    let gate = Gate::of(&[&site]);
    assert_eq!(said(gate.look(&site.agent(), &thumbprint(&jwk)).await), "no such key");
    assert_eq!(said(gate.look(&site.agent(), &thumbprint(&key(1))).await), thumbprint(&key(1)));
    let gate = Gate::start(&format!("{}\nallow_test_keys = true", allow(&[&site])));
    assert_eq!(said(gate.look(&site.agent(), &thumbprint(&jwk)).await), thumbprint(&jwk));
}

#[tokio::test]
async fn a_key_counts_only_between_its_times() {
    let now = 1_800_000_000;
    let (early, late) = (Jwk { nbf: Some(now + 10), ..key(1) }, Jwk { exp: Some(now + 10), ..key(2) });
    let site = Site::of(&[early, late]).await;
    let gate = Gate::of(&[&site]);
    assert_eq!(said(gate.look(&site.agent(), &thumbprint(&key(1))).await), "no such key");
    assert_eq!(said(gate.look(&site.agent(), &thumbprint(&key(2))).await), thumbprint(&key(2)));
    gate.clock.advance(10_000);
    assert_eq!(said(gate.look(&site.agent(), &thumbprint(&key(1))).await), thumbprint(&key(1)));
    assert_eq!(said(gate.look(&site.agent(), &thumbprint(&key(2))).await), "no such key");
    assert_eq!(site.hits(), 1);
}

/// Raw, as `kid` is not ours to choose there.
fn named(kid: &str, keys: &[Jwk]) -> Vec<u8> {
    let keys: Vec<Jwk> = keys.iter().map(|key| Jwk { kid: Some(kid.to_owned()), ..key.clone() }).collect();
    ok("Content-Type: application/json\r\n", &serde_json::json!({ "keys": keys }).to_string())
}

#[tokio::test]
async fn a_key_of_another_agent_never_matches() {
    let a = Site::start(Reply::Bytes(named("main", &[key(1)]))).await;
    let b = Site::start(Reply::Bytes(named("main", &[key(2)]))).await;
    let gate = Gate::of(&[&a, &b]);
    let (first, second) = (thumbprint(&key(1)), thumbprint(&key(2)));
    assert_eq!(said(gate.look(&b.agent(), &second).await), second);
    assert_eq!(said(gate.look(&a.agent(), &second).await), "no such key");
    assert_eq!(said(gate.look(&b.agent(), &first).await), "no such key");
    // The same name, and to each agent its own key.
    assert_eq!(said(gate.look(&a.agent(), "main").await), first);
    assert_eq!(said(gate.look(&b.agent(), "main").await), second);
}

#[tokio::test]
async fn a_kid_is_a_name_and_never_hides_a_thumbprint() {
    let (first, second) = (thumbprint(&key(1)), thumbprint(&key(2)));
    // The first key calls itself by the thumbprint of the second.
    let site = Site::start(Reply::Bytes(named(&second, &[key(1), key(2)]))).await;
    let gate = Gate::of(&[&site]);
    assert_eq!(said(gate.look(&site.agent(), &second).await), second);
    assert_eq!(said(gate.look(&site.agent(), &first).await), first);
    // A name passes from a key that expired to its successor.
    let expired = Jwk { exp: Some(1), ..key(1) };
    let site = Site::start(Reply::Bytes(named("main", &[expired, key(2)]))).await;
    let gate = Gate::of(&[&site]);
    assert_eq!(said(gate.look(&site.agent(), "main").await), second);
}

fn acceptor(name: &str) -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], private)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}

#[tokio::test]
async fn tls_is_verified_against_the_roots_and_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let (right, right_pem) = acceptor("localhost");
    let (other, other_pem) = acceptor("other.example");
    let ca_file = folder.path().join("ca.pem");
    fs::write(&ca_file, right_pem + &other_pem).unwrap();
    let ca_line = format!("ca_file = {:?}", ca_file.to_str().unwrap());
    let expect = thumbprint(&key(1));
    let untrusted = "no trusted TLS connection";
    for (acceptor, ca_line, says) in
        [(&right, &*ca_line, &*expect), (&other, &ca_line, untrusted), (&right, "", untrusted)]
    {
        let mut site = Site::serve(Reply::Bytes(directory_with(&[key(1)], "")), Some(acceptor.clone())).await;
        let agent = AgentUrl::parse(&format!("https://localhost:{}", site.address.port())).unwrap();
        let gate = Gate::start(&format!("allow = [\"{agent}\"]\n{ca_line}"));
        let said = said(gate.look(&agent, &expect).await);
        assert!(said.contains(says), "{said}");
        assert_eq!(site.requests.try_recv().is_ok(), said == expect);
    }
}

#[tokio::test]
async fn roots_that_are_none_are_an_error_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    for content in [None, Some(""), Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")] {
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let text =
            format!("[origin]\nurl = \"http://127.0.0.1:1\"\n[identity]\nca_file = {:?}", file.to_str().unwrap());
        let config = tollgate::config::parse(&text, "t.toml", folder.path(), std::iter::empty());
        let Ok(config) = config else { continue };
        let (keys, questions) = tollgate::identity::Keys::new();
        let service = tollgate::identity::Service::new(keys, questions, &config, tollgate::clock::Clock::manual(0));
        let error = service.err().expect("it starts").to_string();
        assert!(error.contains("ca.pem"), "{error}");
    }
}
