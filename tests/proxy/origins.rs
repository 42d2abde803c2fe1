//! Origins that fail, stall, close, or speak TLS.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::client::{Connection, get};
use crate::support::*;

#[test]
fn a_kept_connection_that_died_is_replaced_once() {
    // Answers one request a connection, then closes without saying so.
    let origin = Origin::scripted(|_, socket| {
        let _ = write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        false
    });
    let agent = Agent::start();
    let gateway = Gateway::start(&site_toml(&origin, &agent, "").replace("cores = 2", "cores = 1"));
    let mut connection = Connection::open(gateway.addr);
    for i in 0..30 {
        let answer = connection.send(format!("GET /{i} HTTP/1.1\r\nHost: x\r\n\r\n")).unwrap();
        assert_eq!(answer.status, 200, "request {i}: {}", answer.text());
    }
    assert_eq!(origin.calls(), 30);
}

#[test]
fn a_request_that_may_have_been_acted_on_is_not_sent_twice() {
    // The second request of a connection is read, and then the connection ends without an answer.
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let origin = Origin::scripted(move |_, socket| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        first && write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let agent = Agent::start();
    let gateway = Gateway::start(&site_toml(&origin, &agent, "").replace("cores = 2", "cores = 1"));
    let mut connection = Connection::open(gateway.addr);
    assert_eq!(connection.send("GET /warm HTTP/1.1\r\nHost: x\r\n\r\n").unwrap().status, 200);
    let answer = connection.send("POST /order HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi").unwrap();
    assert_eq!((answer.status, answer.reason(), requests.load(Ordering::SeqCst)), (502, "origin_invalid", 2));
}

#[test]
fn an_origin_that_is_gone_hangs_or_is_no_http_has_its_code() {
    let agent = Agent::start();
    let nonsense = Origin::scripted(|_, socket| socket.write_all(b"SSH-2.0-x\r\n").is_err());
    let gateway = paid_site(&nonsense, &agent);
    let answer = get(gateway.addr, "/a");
    assert_eq!((answer.status, answer.reason()), (502, "origin_invalid"));

    let hangs = Origin::scripted(|_, socket| socket.read(&mut [0; 1]).is_err());
    let toml = site_toml(&hangs, &agent, "").replace("[deferred]", "head_seconds = 1\n[deferred]");
    let gateway = Gateway::start(&toml);
    let answer = get(gateway.addr, "/a");
    assert_eq!((answer.status, answer.reason()), (504, "origin_timeout"));
    let paid = agent.buy(gateway.addr, "/paid/a");
    assert_eq!((paid.status, paid.reason()), (504, "origin_timeout"));

    let gateway = Gateway::start(&toml.replace(&hangs.addr.to_string(), "127.0.0.1:1"));
    let answer = get(gateway.addr, "/a");
    assert_eq!(
        (answer.status, answer.reason(), answer.header("cache-control")),
        (502, "origin_unreachable", Some("no-store"))
    );
}

#[test]
fn an_origin_that_cannot_be_connected_to_in_time_has_its_code() {
    // Takes connections, and never says a word of TLS.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "").replace(
        &format!("url = \"http://{}\"", origin.addr),
        &format!("url = \"https://{}\"\nconnect_seconds = 1", silent.local_addr().unwrap()),
    );
    let gateway = Gateway::start(&toml);
    let answer = get(gateway.addr, "/a");
    assert_eq!((answer.status, answer.reason()), (504, "origin_timeout"));
    let paid = agent.buy(gateway.addr, "/paid/a");
    assert_eq!((paid.status, paid.reason()), (504, "origin_timeout"));
    assert!(paid.header("payment-response").is_none());
}

#[test]
fn an_answer_that_stalls_is_cut() {
    let origin = Origin::scripted(|_, socket| {
        let _ = write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        socket.read(&mut [0; 1]).is_err()
    });
    let agent = Agent::start();
    let toml = site_toml(&origin, &agent, "").replace("[deferred]", "body_idle_seconds = 1\n[deferred]");
    let gateway = Gateway::start(&toml);
    let answer = get(gateway.addr, "/a");
    assert!(answer.truncated && answer.body == b"half");
}

#[test]
fn an_origin_behind_tls_is_reached_only_with_the_right_root() {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let addr = tls_origin(&key);
    let agent = Agent::start();
    let plain = Origin::start();
    let toml = |ca: &str| {
        site_toml(&plain, &agent, "").replace(
            &format!("url = \"http://{}\"", plain.addr),
            &format!("url = \"https://localhost:{}\"\n{ca}", addr.port()),
        )
    };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), key.cert.pem()).unwrap();
    let gateway = Gateway::start_in(dir, &toml("ca_file = \"ca.pem\""));
    assert_eq!((get(gateway.addr, "/a").text().as_str(), agent.buy(gateway.addr, "/paid/a").status), ("secret", 200));
    let gateway = Gateway::start(&toml(""));
    assert_eq!(get(gateway.addr, "/a").reason(), "origin_unreachable");
}

fn tls_origin(key: &rcgen::CertifiedKey<rcgen::KeyPair>) -> std::net::SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![key.cert.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (Ok(mut socket), config) = (socket, config.clone()) else { return };
            std::thread::spawn(move || {
                let mut session = rustls::ServerConnection::new(config).unwrap();
                let mut stream = std::io::BufReader::new(rustls::Stream::new(&mut session, &mut socket));
                while crate::support::origin::read_request(&mut stream).is_some() {
                    if stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret").is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

#[test]
fn nginx_is_an_origin() {
    let Some(nginx) = std::env::var_os("TOLLGATE_NGINX")
        .filter(|p| !p.is_empty())
        .or_else(|| std::path::Path::new("/usr/sbin/nginx").exists().then(|| "/usr/sbin/nginx".into()))
    else {
        if let Some(file) = std::env::var_os("TOLLGATE_TEST_SKIPPED") {
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
            writeln!(file, "nginx-origin: nginx is not installed").unwrap();
        }
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let site = dir.path().join("site");
    std::fs::create_dir(&site).unwrap();
    std::fs::create_dir(site.join("paid")).unwrap();
    std::fs::write(site.join("index.html"), "<h1>home</h1>").unwrap();
    std::fs::write(site.join("paid/article.html"), "a".repeat(100_000)).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let conf = include_str!("../nginx/origin.conf")
        .replace("@PORT@", &port.to_string())
        .replace("@DIR@", dir.path().to_str().unwrap());
    std::fs::write(dir.path().join("nginx.conf"), conf).unwrap();
    let prefix = dir.path().to_str().unwrap();
    let child =
        std::process::Command::new(nginx).args(["-e", "stderr", "-p", prefix, "-c", "nginx.conf"]).spawn().unwrap();
    let mut child = Killed(child);
    let addr: std::net::SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    while std::net::TcpStream::connect(addr).is_err() {
        assert!(child.0.try_wait().unwrap().is_none(), "nginx ended");
        std::thread::yield_now();
    }
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, "").replace(&origin.addr.to_string(), &addr.to_string()));
    assert_eq!(get(gateway.addr, "/index.html").text(), "<h1>home</h1>");
    let paid = agent.buy(gateway.addr, "/paid/article.html");
    assert_eq!((paid.status, paid.body.len()), (200, 100_000));
    assert_eq!(agent.buy(gateway.addr, "/paid/missing.html").status, 404);
    let part =
        exchange(gateway.addr, "GET /index.html HTTP/1.1\r\nHost: x\r\nRange: bytes=4-7\r\nConnection: close\r\n\r\n");
    assert_eq!((part.status, part.text().as_str()), (206, "home"));
    let etag = get(gateway.addr, "/index.html").header("etag").unwrap().to_owned();
    let same = exchange(
        gateway.addr,
        format!("GET /index.html HTTP/1.1\r\nHost: x\r\nIf-None-Match: {etag}\r\nConnection: close\r\n\r\n"),
    );
    assert_eq!(same.status, 304);
}

struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // TERM lets the master end its workers.
        let _ = std::process::Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

#[test]
fn a_paid_request_is_not_sent_twice_even_where_a_free_one_would_be() {
    // The second request of a connection is read, and then the connection ends without an answer.
    let origin = Origin::scripted(|seen, socket| {
        !seen.has("tollgate-payment-id") && write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let agent = Agent::start();
    let gateway = Gateway::start(&site_toml(&origin, &agent, "").replace("cores = 2", "cores = 1"));
    let mut connection = Connection::open(gateway.addr);
    assert_eq!(connection.send("GET /warm HTTP/1.1\r\nHost: x\r\n\r\n").unwrap().status, 200);
    let answer = agent.buy(gateway.addr, "/paid/a");
    assert_eq!((answer.status, answer.reason()), (502, "origin_invalid"));
    assert_eq!(origin.seen().iter().filter(|s| s.has("tollgate-payment-id")).count(), 1);
}
