//! HTTPS beside plain HTTP: names, HTTP/2, the price, deadlines, certificates that change.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::support::client::{PATIENCE, get};
use crate::support::gateway::tollgate;
use crate::support::tls::{Made, Secure, trusting};
use crate::support::*;

/// A site with HTTPS for `shop.example` and `*.shop.example`, and `blog.example`.
struct Site {
    shop: Made,
    blog: Made,
    gateway: Gateway,
    agent: Agent,
    origin: Origin,
}

fn toml(origin: &Origin, agent: &Agent, server: &str) -> String {
    let toml = site_toml(origin, agent, "").replace("drain_seconds = 2\n", &format!("drain_seconds = 2\n{server}\n"));
    format!(
        "{toml}\n[server.tls]\nlisten = [\"127.0.0.1:0\"]\n\
         [[server.tls.certificates]]\ncert_file = \"shop.crt\"\nkey_file = \"shop.key\"\n\
         [[server.tls.certificates]]\ncert_file = \"blog.crt\"\nkey_file = \"blog.key\"\n"
    )
}

impl Site {
    fn start() -> Site {
        let (origin, agent, dir) = (Origin::start(), Agent::start(), tempfile::tempdir().unwrap());
        let (shop, blog) = (Made::new(&["shop.example", "*.shop.example"]), Made::new(&["blog.example"]));
        shop.write(dir.path(), "shop");
        blog.write(dir.path(), "blog");
        let gateway = Gateway::start_in(dir, &toml(&origin, &agent, ""));
        Site { shop, blog, gateway, agent, origin }
    }

    fn addr(&self) -> SocketAddr {
        self.gateway.https.unwrap()
    }

    fn open(&self, name: &str, alpn: &[&str]) -> std::io::Result<Secure> {
        Secure::open(self.addr(), name, trusting(&[&self.shop, &self.blog], alpn))
    }
}

#[test]
fn each_name_has_its_certificate_and_plain_http_goes_on() {
    let site = Site::start();
    for (name, made) in [("shop.example", &site.shop), ("www.shop.example", &site.shop), ("blog.example", &site.blog)] {
        let mut secure = site.open(name, &[]).unwrap();
        assert_eq!(secure.certificate(), made.der(), "{name}");
        assert_eq!(secure.get(name, "/a").unwrap().text(), "content of /a");
    }
    let Err(error) = site.open("other.example", &[]) else { panic!("no certificate is for other.example") };
    assert!(error.to_string().contains("only valid for DnsName(\"shop.example\")"), "the first one is shown: {error}");
    assert_eq!(get(site.gateway.addr, "/b").text(), "content of /b");
}

#[test]
fn the_origin_and_the_offer_are_told_of_https() {
    let site = Site::start();
    let mut secure = site.open("shop.example", &["http/1.1"]).unwrap();
    assert_eq!(secure.protocol(), Some(&b"http/1.1"[..]));
    let offer = secure.get("shop.example", "/paid/a").unwrap();
    assert_eq!(offer.status, 402);
    assert_eq!(offer.json()["accepts"][0]["resource"], "https://shop.example/paid/a");
    let id = offer.json()["accepts"][0]["extras"]["id"].as_str().unwrap().to_owned();
    let signed = site.agent.signed("shop.example", "GET", "/paid/a", &id);
    let mut request = String::from("GET /paid/a HTTP/1.1\r\nHost: shop.example\r\n");
    signed.fields().iter().for_each(|(name, value)| request += &format!("{name}: {value}\r\n"));
    let paid = secure.send(request + "\r\n").unwrap();
    assert_eq!((paid.status, paid.text().as_str()), (200, "content of /paid/a"), "{}", paid.reason());
    assert_eq!(site.origin.last().header("x-forwarded-proto"), Some("https"));
    let (_, dir) = site.gateway.stop();
    let (_, out, _) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert!(out.contains("\"complete\"") && out.lines().count() == 1, "{out}");
}

#[tokio::test]
async fn http2_is_chosen_by_alpn() {
    let site = Site::start();
    let socket = tokio::net::TcpStream::connect(site.addr()).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(trusting(&[&site.shop], &["h2", "http/1.1"]));
    let stream = connector.connect("shop.example".try_into().unwrap(), socket).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("https://shop.example/a?b").body(Full::<Bytes>::default()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&body[..], b"content of /a?b");
}

#[test]
fn a_client_that_speaks_something_else_is_closed() {
    let site = Site::start();
    for bytes in ["GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n", "\x16\x03\x01\x7f\u{7f}garbage garbage garbage"] {
        let mut socket = TcpStream::connect(site.addr()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(bytes.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(!String::from_utf8_lossy(&answer).contains("HTTP/"), "{answer:?}");
    }
    // One that asks for another protocol is told so, not served another.
    let Err(error) = site.open("shop.example", &["imap"]) else { panic!("imap is not spoken") };
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    assert_eq!(site.open("shop.example", &[]).unwrap().get("shop.example", "/").unwrap().status, 200);
}

#[test]
fn a_client_that_says_nothing_is_closed() {
    let (origin, agent, dir) = (Origin::start(), Agent::start(), tempfile::tempdir().unwrap());
    Made::new(&["shop.example"]).write(dir.path(), "shop");
    Made::new(&["blog.example"]).write(dir.path(), "blog");
    let toml = toml(&origin, &agent, "[server.limits]\nheader_seconds = 1\n");
    let gateway = Gateway::start_in(dir, &toml);
    let mut socket = TcpStream::connect(gateway.https.unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0, "closed, and not by the client's patience");
}

#[test]
fn a_large_answer_arrives_whole_and_a_large_request_too() {
    let origin = Origin::scripted(|seen, socket| {
        let body = "0123456789abcdef".repeat(200_000);
        let got = format!("{}:", seen.body.len());
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{got}{body}", got.len() + body.len()).is_ok()
    });
    let (agent, dir) = (Agent::start(), tempfile::tempdir().unwrap());
    let shop = Made::new(&["shop.example"]);
    shop.write(dir.path(), "shop");
    Made::new(&["blog.example"]).write(dir.path(), "blog");
    let gateway = Gateway::start_in(dir, &toml(&origin, &agent, ""));
    let mut secure = Secure::open(gateway.https.unwrap(), "shop.example", trusting(&[&shop], &[])).unwrap();
    for _ in 0..3 {
        let body = "x".repeat(1_000_000);
        let answer = secure
            .send(format!("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
            .unwrap();
        assert_eq!(answer.body.len(), "1000000:".len() + 3_200_000);
        assert!(!answer.truncated);
    }
}

#[test]
fn certificates_that_change_are_served_without_a_restart() {
    let site = Site::start();
    let mut before = site.open("shop.example", &[]).unwrap();
    let dir = site.gateway.dir.path();
    // A certificate whose key has not arrived yet is not served, and nothing is lost.
    let next = Made::new(&["shop.example"]);
    std::fs::write(dir.join("shop.crt"), &next.cert).unwrap();
    wait_for(|| site.gateway.log().contains("is not the key of the certificate"));
    assert_eq!(site.open("shop.example", &[]).unwrap().certificate(), site.shop.der());
    std::fs::write(dir.join("shop.key"), &next.key).unwrap();
    let trust = trusting(&[&next], &[]);
    wait_for(|| Secure::open(site.addr(), "shop.example", trust.clone()).is_ok());
    assert_eq!(before.get("shop.example", "/a").unwrap().status, 200, "open connections stay");
}

#[test]
fn files_that_cannot_be_used_end_the_start() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let shop = Made::new(&["shop.example"]);
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (cert, key, expected) in [
        (None, Some(shop.key.as_str()), "shop.crt: cannot be read: No such file"),
        (Some(shop.cert.as_str()), None, "shop.key: cannot be read: No such file"),
        (Some("hello"), Some(shop.key.as_str()), "shop.crt: holds no certificate"),
        (Some(shop.cert.as_str()), Some("hello"), "shop.key: holds no private key"),
        (Some(shop.cert.as_str()), Some(locked), "shop.key: the key is locked with a password"),
        (
            Some(shop.cert.as_str()),
            Some(Made::new(&["a"]).key.as_str()),
            "shop.key: is not the key of the certificate in",
        ),
        (Some(shop.key.as_str()), Some(shop.key.as_str()), "shop.crt: holds no certificate"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        Made::new(&["blog.example"]).write(dir.path(), "blog");
        let write = |name: &str, text: Option<&str>| {
            text.iter().for_each(|text| std::fs::write(dir.path().join(name), text).unwrap());
        };
        write("shop.crt", cert);
        write("shop.key", key);
        std::fs::write(dir.path().join("tollgate.toml"), toml(&origin, &agent, "")).unwrap();
        for command in ["run", "check"] {
            let (code, out, err) = tollgate(dir.path(), &[command, "-c", "tollgate.toml"]);
            assert_eq!(code, 2, "{command}: {out}{err}");
            assert!(err.contains(expected), "{command}: expected {expected:?}, got {out}{err}");
        }
        assert!(!dir.path().join("tollgate.sqlite").exists(), "no ledger is made by a start that fails");
    }
}

/// Asks until it is so.
fn wait_for(is_so: impl Fn() -> bool) {
    let since = std::time::Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "it did not come about");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}
