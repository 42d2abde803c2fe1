//! Connections that go over to another protocol: WebSocket through the gateway, free and paid.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::client::{Answer, Connection, PATIENCE, exchange};
use crate::support::gateway::tollgate;
use crate::support::*;

/// Answers an upgrade with 101 and sends everything back in capitals; anything else with 426.
fn echo() -> Origin {
    Origin::scripted(|seen, socket| {
        if seen.header("upgrade") != Some("websocket") {
            let text = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 4\r\n\r\nhttp";
            return write!(socket, "{text}").is_ok();
        }
        // Nothing of what comes after the head may be here before 101 is.
        socket.set_nonblocking(true).unwrap();
        let early = socket.peek(&mut [0; 1]).is_ok_and(|bytes| bytes > 0);
        socket.set_nonblocking(false).unwrap();
        let early = if early { "yes" } else { "no" };
        write!(
            socket,
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nX-Early: {early}\r\n\r\n"
        )
        .unwrap();
        let mut bytes = [0; 1024];
        while let Ok(n @ 1..) = socket.read(&mut bytes) {
            bytes[..n].make_ascii_uppercase();
            if socket.write_all(&bytes[..n]).is_err() {
                break;
            }
        }
        false
    })
}

const UPGRADE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn ask(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{UPGRADE}\r\n")
}

/// Sends text through a tunnel and reads as much back.
fn through(connection: &mut Connection, text: &str) -> String {
    connection.write(text);
    let mut back = vec![0; text.len()];
    connection.reader.read_exact(&mut back).unwrap();
    String::from_utf8(back).unwrap()
}

fn assert_switched(answer: &Answer) {
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert_eq!(answer.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(answer.header("x-early"), Some("no"), "bytes went to the origin before it switched");
}

#[test]
fn bytes_go_both_ways_once_both_have_switched() {
    let (origin, agent) = (echo(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let mut connection = Connection::open(gateway.addr);
    // What is sent at once waits for 101, and is not lost.
    let answer = connection.send(ask(&gateway.addr.to_string(), "/socket") + "early").unwrap();
    assert_switched(&answer);
    let mut back = [0; 5];
    connection.reader.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"EARLY");
    assert_eq!(through(&mut connection, "hello"), "HELLO");
    let long = "abcdefgh".repeat(100_000);
    let writer = connection.socket.try_clone().unwrap();
    let sent = long.clone();
    let sender = std::thread::spawn(move || (&writer).write_all(sent.as_bytes()).unwrap());
    let mut back = vec![0; long.len()];
    connection.reader.read_exact(&mut back).unwrap();
    sender.join().unwrap();
    assert_eq!(back, long.to_ascii_uppercase().into_bytes());
    connection.socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(connection.closed(), "an end that closes closes the other");
    let seen = origin.last();
    assert_eq!(seen.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert_eq!(seen.header("connection"), Some("upgrade"));
}

#[test]
fn a_priced_one_opens_when_it_is_paid() {
    let (origin, agent) = (echo(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let host = gateway.addr.to_string();
    let offer = exchange(gateway.addr, ask(&host, "/paid/socket"));
    assert_eq!(offer.status, 402);
    assert!(origin.seen().is_empty(), "nothing reaches the origin unpaid");
    let id = offer.json()["accepts"][0]["extras"]["id"].as_str().unwrap().to_owned();
    let signed = agent.signed(&host, "GET", "/paid/socket", &id);
    let mut connection = Connection::open(gateway.addr);
    let answer = connection.send(signed.head_with(UPGRADE)).unwrap();
    assert_switched(&answer);
    assert!(answer.header("payment-response").is_some());
    assert_eq!(through(&mut connection, "paid"), "PAID");
    // The same payment opens no second one.
    assert_eq!(exchange(gateway.addr, signed.head_with(UPGRADE)).status, 402);
    drop(connection);
    let (_, dir) = gateway.stop();
    let (_, out, _) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert!(out.contains("\"complete\"") && out.lines().count() == 1, "{out}");
}

#[test]
fn an_origin_that_does_not_switch_is_not_paid_for_an_error() {
    let (origin, agent) = (
        Origin::scripted(|_, socket| write!(socket, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").is_ok()),
        Agent::start(),
    );
    let gateway = paid_site(&origin, &agent);
    let signed = agent.request(gateway.addr, "GET", "/paid/socket");
    let answer = exchange(gateway.addr, signed.head_with(UPGRADE));
    assert_eq!((answer.status, answer.header("payment-response")), (400, None));
    let (_, dir) = gateway.stop();
    let (_, out, _) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert_eq!(out, "");
}

#[test]
fn a_switch_is_charged_whatever_the_list_of_statuses_says() {
    let (origin, agent) = (echo(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, "charge_on = [200]\n"));
    let signed = agent.request(gateway.addr, "GET", "/paid/socket");
    let answer = Connection::open(gateway.addr).send(signed.head_with(UPGRADE)).unwrap();
    assert_switched(&answer);
    assert!(answer.header("payment-response").is_some());
}

#[test]
fn an_origin_that_is_asked_for_its_price_is_not_asked_to_switch() {
    let (origin, agent) = (echo(), Agent::start());
    let gateway =
        Gateway::start(&site_toml(&origin, &agent, "accept = [\"crawl\"]\norigin_price = true\nmethods = [\"GET\"]\n"));
    let answer = exchange(gateway.addr, ask(&gateway.addr.to_string(), "/paid/socket"));
    assert_eq!(answer.status, 426, "{answer:?}");
    assert!(!origin.last().has("upgrade") && !origin.last().has("connection"));
}

#[test]
fn other_versions_of_http_are_no_way_past_the_gate() {
    let (origin, agent) = (echo(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    for fields in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let request = format!("GET /a HTTP/1.1\r\nHost: {}\r\n{fields}\r\n0\r\n\r\n", gateway.addr);
        let answer = exchange(gateway.addr, request);
        assert!([400, 426].contains(&answer.status), "{fields}: {answer:?}");
        if let Some(seen) = origin.seen().last() {
            assert!(!seen.has("upgrade") && !seen.has("http2-settings"), "{seen:?}");
        }
    }
}

#[test]
fn a_switch_that_nobody_asked_for_is_the_origins_fault() {
    let (origin, agent) = (
        Origin::scripted(|_, socket| {
            let text = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            write!(socket, "{text}HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray").is_ok()
        }),
        Agent::start(),
    );
    let gateway = paid_site(&origin, &agent);
    let request = format!("GET /a HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.addr);
    assert_eq!(exchange(gateway.addr, request).status, 502);
    let signed = agent.request(gateway.addr, "GET", "/paid/a");
    assert_eq!(exchange(gateway.addr, signed.head()).status, 502);
}

#[test]
fn a_tunnel_ends_when_nothing_moves_or_its_time_is_over() {
    let (origin, agent) = (echo(), Agent::start());
    let limits = |text: &str| {
        let toml = site_toml(&origin, &agent, "");
        Gateway::start(&toml.replace("[origin]", &format!("[server.limits]\n{text}\n[origin]")))
    };
    let idle = limits("tunnel_idle_seconds = 1");
    let mut connection = Connection::open(idle.addr);
    assert_switched(&connection.send(ask(&idle.addr.to_string(), "/a")).unwrap());
    assert_eq!(through(&mut connection, "x"), "X");
    assert!(connection.closed());
    let total = limits("tunnel_seconds = 1");
    let mut connection = Connection::open(total.addr);
    assert_switched(&connection.send(ask(&total.addr.to_string(), "/a")).unwrap());
    // It moves all the time, and ends all the same.
    let since = std::time::Instant::now();
    let mut byte = [0; 1];
    while connection.socket.write_all(b"x").is_ok() && connection.reader.read_exact(&mut byte).is_ok() {
        assert!(since.elapsed() < PATIENCE);
    }
}

#[test]
fn a_drain_gives_tunnels_their_time() {
    let (origin, agent) = (echo(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let mut connection = Connection::open(gateway.addr);
    assert_switched(&connection.send(ask(&gateway.addr.to_string(), "/a")).unwrap());
    gateway.term();
    while TcpStream::connect_timeout(&gateway.addr, Duration::from_secs(1)).is_ok() {}
    assert_eq!(through(&mut connection, "still"), "STILL");
    assert!(connection.closed(), "after drain_seconds it is cut");
    assert!(gateway.wait().success());
}

#[test]
fn it_works_through_tls() {
    let (origin, agent, dir) = (echo(), Agent::start(), tempfile::tempdir().unwrap());
    let made = crate::support::tls::Made::new(&["shop.example"]);
    made.write(dir.path(), "shop");
    let toml = site_toml(&origin, &agent, "")
        + "\n[server.tls]\nlisten = [\"127.0.0.1:0\"]\n\
        [[server.tls.certificates]]\ncert_file = \"shop.crt\"\nkey_file = \"shop.key\"\n";
    let gateway = Gateway::start_in(dir, &toml);
    let config = crate::support::tls::trusting(&[&made], &["http/1.1"]);
    let mut secure = crate::support::tls::Secure::open(gateway.https.unwrap(), "shop.example", config).unwrap();
    assert_switched(&secure.send(ask("shop.example", "/a")).unwrap());
    assert_eq!(secure.through("hello"), "HELLO");
}
