//! HTTP/2 with prior knowledge: the same gate, and floods that end.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::support::client::get;
use crate::support::*;

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn connect(gateway: &Gateway) -> Sender {
    let socket = tokio::net::TcpStream::connect(gateway.addr).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn send(sender: &mut Sender, request: http::request::Builder) -> (Response<()>, String) {
    let response: Response<Incoming> = sender.send_request(request.body(Full::default()).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    (Response::from_parts(head, ()), String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn the_whole_handshake_works_over_http2() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let mut sender = connect(&gateway).await;
    let url = |path: &str| format!("http://{}{path}", gateway.addr);
    let (free, body) = send(&mut sender, Request::get(url("/free?q"))).await;
    assert_eq!((free.status().as_u16(), body.as_str()), (200, "content of /free?q"));
    assert_eq!(origin.last().header("via"), Some("2.0 tollgate"));
    let (offer, body) = send(&mut sender, Request::get(url("/paid/a?q"))).await;
    assert_eq!(offer.status(), 402);
    let offer: serde_json::Value = serde_json::from_str(&body).unwrap();
    let id = offer["accepts"][0]["extras"]["id"].as_str().unwrap();
    let mut request = Request::get(url("/paid/a?q"));
    for (name, value) in agent.signed(&gateway.addr.to_string(), "GET", "/paid/a?q", id).fields() {
        request = request.header(name, value);
    }
    let (paid, body) = send(&mut sender, request).await;
    assert_eq!((paid.status().as_u16(), body.as_str()), (200, "content of /paid/a?q"));
    assert!(paid.headers().contains_key("payment-response"));
    let (_, dir) = gateway.stop();
    let (_, out, _) =
        crate::support::gateway::tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert!(out.contains("\"complete\"") && out.lines().count() == 1, "{out}");
}

#[tokio::test]
async fn many_streams_share_a_connection() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let sender = connect(&gateway).await;
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            let (mut sender, url) = (sender.clone(), format!("http://{}/{i}", gateway.addr));
            tokio::spawn(async move { send(&mut sender, Request::get(url)).await.1 })
        })
        .collect();
    for (i, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap(), format!("content of /{i}"));
    }
}

#[tokio::test]
async fn connection_fields_do_not_cross_from_http2() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let mut sender = connect(&gateway).await;
    // hyper's client refuses to send `connection`; a `te` other than trailers and an upgrade pass it.
    let request =
        Request::get(format!("http://{}/a", gateway.addr)).header("te", "trailers").header("tollgate-account", "x");
    assert_eq!(send(&mut sender, request).await.0.status(), 200);
    let seen = origin.last();
    assert!(!seen.has("tollgate-account") && seen.header("host") == Some(gateway.addr.to_string().as_str()));
}

#[tokio::test]
async fn a_header_list_up_to_the_limit_passes_and_a_longer_one_is_431() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let mut sender = connect(&gateway).await;
    for (bytes, status) in [(60_000, 200), (70_000, 431), (10, 200)] {
        let request = Request::get(format!("http://{}/a", gateway.addr)).header("x", "a".repeat(bytes));
        assert_eq!(send(&mut sender, request).await.0.status(), status, "{bytes}");
    }
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn a_target_above_the_limit_is_414() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let mut sender = connect(&gateway).await;
    let url = |bytes| Request::get(format!("http://{}/{}", gateway.addr, "a".repeat(bytes)));
    assert_eq!(send(&mut sender, url(8_000)).await.0.status(), 200);
    assert_eq!(send(&mut sender, url(9_000)).await.0.status(), 414);
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// GET / at authority x, literal and indexed header fields.
const HEADERS: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'x'];

/// Floods until the gateway ends the connection; then it must serve others as before.
fn flood(gateway: &Gateway, mut frames: impl FnMut(u32) -> Vec<u8>) {
    let mut socket = std::net::TcpStream::connect(gateway.addr).unwrap();
    socket.set_write_timeout(Some(crate::support::client::PATIENCE)).unwrap();
    let mut reader = socket.try_clone().unwrap();
    reader.set_read_timeout(Some(crate::support::client::PATIENCE)).unwrap();
    let reading = std::thread::spawn(move || {
        let mut scrap = [0; 65536];
        while matches!(reader.read(&mut scrap), Ok(n) if n > 0) {}
    });
    let mut ended = socket.write_all(PREFACE).is_err();
    for i in 0..2_000_000 {
        if ended {
            break;
        }
        ended = socket.write_all(&frames(i)).is_err();
    }
    assert!(ended, "the flood was let run");
    reading.join().unwrap();
    assert_eq!(get(gateway.addr, "/after").status, 200);
}

#[test]
fn rapid_resets_end_the_connection() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    flood(&gateway, |i| {
        let stream = 2 * i + 1;
        [frame(1, 0x5, stream, HEADERS), frame(3, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    assert!(origin.calls() < 20_000, "{} origin calls", origin.calls());
}

#[test]
fn streams_that_the_gateway_has_to_reset_end_the_connection() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    // POST with `content-length: 1`, and two bytes.
    let head = [&[0x83, 0x86, 0x84, 0x41, 0x01, b'x'][..], &[0x0f, 0x0d, 0x01, b'1']].concat();
    flood(&gateway, |i| {
        let stream = 2 * i + 1;
        [frame(1, 0x4, stream, &head), frame(0, 0x1, stream, b"xx")].concat()
    });
    assert!(origin.calls() < 20_000, "{} origin calls", origin.calls());
}

#[test]
fn above_the_limit_of_streams_new_ones_are_refused() {
    // Holds what it gets until the connection ends.
    let origin = Origin::scripted(|_, socket| socket.read(&mut [0; 1]).is_err());
    let agent = Agent::start();
    let gateway = paid_site(&origin, &agent);
    let mut socket = std::net::TcpStream::connect(gateway.addr).unwrap();
    socket.set_read_timeout(Some(crate::support::client::PATIENCE)).unwrap();
    let mut bytes = PREFACE.to_vec();
    (0..101).for_each(|i| bytes.extend(frame(1, 0x5, 2 * i + 1, HEADERS)));
    socket.write_all(&bytes).unwrap();
    let reset = loop {
        let (kind, stream, payload) = read_frame(&mut socket);
        if kind == 3 {
            break (stream, payload);
        }
        assert!(matches!(kind, 4 | 6 | 8), "a frame of kind {kind} for stream {stream}");
    };
    // REFUSED_STREAM
    assert_eq!(reset, (201, 7_u32.to_be_bytes().to_vec()));
    while origin.calls() < 100 {
        std::thread::yield_now();
    }
    assert_eq!(origin.calls(), 100);
}

/// Kind, stream and payload of the next frame.
fn read_frame(socket: &mut std::net::TcpStream) -> (u8, u32, Vec<u8>) {
    let mut head = [0; 9];
    socket.read_exact(&mut head).expect("no frame came");
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    socket.read_exact(&mut payload).unwrap();
    (head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload)
}

#[test]
fn endless_continuations_end_the_connection() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let line = [&[0x00, 0x01, b'a', 0x7f, 0x81, 0x7d][..], &[b'b'; 16_000]].concat();
    flood(&gateway, move |i| if i == 0 { frame(1, 0x1, 1, HEADERS) } else { frame(9, 0, 1, &line[..16_000]) });
    assert_eq!(origin.calls(), 1);
}

#[test]
fn a_window_that_stays_shut_ends_the_connection() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, "[server.limits]\nwrite_stall_seconds = 1\n"));
    let mut socket = std::net::TcpStream::connect(gateway.addr).unwrap();
    socket.set_read_timeout(Some(crate::support::client::PATIENCE)).unwrap();
    // SETTINGS_INITIAL_WINDOW_SIZE = 0: no byte of a body may be sent.
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]));
    for i in 0..20 {
        bytes.extend(frame(1, 0x5, 2 * i + 1, HEADERS));
    }
    socket.write_all(&bytes).unwrap();
    let mut scrap = [0; 4096];
    while matches!(socket.read(&mut scrap), Ok(n) if n > 0) {}
    assert_eq!(get(gateway.addr, "/after").status, 200);
}

#[tokio::test]
async fn an_answer_to_head_has_no_body() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let mut sender = connect(&gateway).await;
    for (path, status) in [("/paid/a", 402), ("/free", 200), ("/paid/..%2f", 400)] {
        let request = Request::head(format!("http://{}{path}", gateway.addr));
        let (head, body) = send(&mut sender, request).await;
        assert_eq!((head.status().as_u16(), body.as_str()), (status, ""), "{path}");
        assert!(head.headers().contains_key("content-length"), "{path}: {head:?}");
    }
}
