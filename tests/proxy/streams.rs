//! Bodies stream both ways, unbuffered, with backpressure.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use crate::support::client::{Connection, get};
use crate::support::*;

#[test]
fn events_pass_one_by_one_as_they_come() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::scripted(move |_, socket| {
        let mut sent =
            write!(socket, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
                .is_ok();
        for i in 0..3 {
            // One write: a chunk in pieces would come in pieces.
            sent &= socket.write_all(format!("9\r\ndata: {i}\n\n\r\n").as_bytes()).is_ok();
            let _ = wait.lock().unwrap().recv();
        }
        sent && socket.write_all(b"0\r\n\r\n").is_ok()
    });
    let agent = Agent::start();
    let gateway = paid_site(&origin, &agent);
    for head in [
        "GET /events HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        agent.request(gateway.addr, "GET", "/paid/events").head_with(""),
    ] {
        let mut connection = Connection::open(gateway.addr);
        connection.write(head);
        let mut text = String::new();
        for i in 0..3 {
            // The origin waits for our word before the next event: each must have arrived by then.
            while !text.contains(&format!("data: {i}\n\n")) {
                let mut buffer = [0; 1024];
                let n = connection.socket.read(&mut buffer).unwrap();
                assert!(n > 0, "{text}");
                text.push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
            go.send(()).unwrap();
        }
    }
}

#[test]
fn large_bodies_arrive_whole_in_both_directions() {
    let origin = Origin::scripted(|seen, socket| {
        let body = &seen.body;
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).is_ok()
            && socket.write_all(body).is_ok()
    });
    let agent = Agent::start();
    let gateway = paid_site(&origin, &agent);
    let body: Vec<u8> = (0..5_000_000_u32).map(|i| (i % 251) as u8).collect();
    let mut connection = Connection::open(gateway.addr);
    connection.write(format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()));
    connection.write(&body);
    assert!(connection.read(false).unwrap().body == body);
    // And chunked, over the same connection.
    connection.write("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for chunk in body.chunks(60_000) {
        connection.write(format!("{:x}\r\n", chunk.len()));
        connection.write(chunk);
        connection.write("\r\n");
    }
    connection.write("0\r\n\r\n");
    assert!(connection.read(false).unwrap().body == body);
}

#[test]
fn a_client_that_does_not_read_holds_the_origin_back() {
    let sent = Arc::new(AtomicU64::new(0));
    let count = sent.clone();
    let (blocked, heard) = mpsc::channel();
    let blocked = Mutex::new(blocked);
    let origin = Origin::scripted(move |_, socket| {
        let _ = socket.set_write_timeout(Some(std::time::Duration::from_secs(1)));
        let _ = write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let chunk = vec![b'x'; 64 * 1024];
        while socket.write_all(&chunk).is_ok() {
            count.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        let _ = blocked.lock().unwrap().send(());
        false
    });
    let agent = Agent::start();
    let gateway = paid_site(&origin, &agent);
    let mut connection = Connection::open(gateway.addr);
    connection.write("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    heard.recv().unwrap();
    // Socket buffers of two hops and one read buffer; a gateway that took all it could would have the whole gigabyte.
    assert!(sent.load(Ordering::Relaxed) < 40_000_000, "{}", sent.load(Ordering::Relaxed));
}

#[test]
fn response_trailers_pass_when_the_client_wants_them() {
    let origin = Origin::scripted(|_, socket| {
        write!(
            socket,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 42\r\n\r\n"
        )
        .is_ok()
    });
    let agent = Agent::start();
    let gateway = paid_site(&origin, &agent);
    let answer = exchange(gateway.addr, "GET /a HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n");
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "42".to_owned())], "{answer:?}");
    assert_eq!(origin.last().header("te"), Some("trailers"));
}

#[test]
fn head_and_range_pass_through() {
    let origin = Origin::scripted(|seen, socket| {
        let range = seen.header("range") == Some("bytes=0-1");
        let head = if range {
            "206 Partial Content\r\nContent-Range: bytes 0-1/10\r\nContent-Length: 2"
        } else {
            "200 OK\r\nContent-Length: 10"
        };
        let body = if seen.line.starts_with("HEAD") {
            ""
        } else if range {
            "01"
        } else {
            "0123456789"
        };
        write!(socket, "HTTP/1.1 {head}\r\n\r\n{body}").is_ok()
    });
    let agent = Agent::start();
    let gateway = paid_site(&origin, &agent);
    let mut connection = Connection::open(gateway.addr);
    let head = connection.send("HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("10"), 0));
    let part = connection.send("GET /a HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1\r\n\r\n").unwrap();
    assert_eq!((part.status, part.text().as_str()), (206, "01"));
    // A part of a priced resource costs what the whole does.
    let paid = exchange(
        gateway.addr,
        agent.request(gateway.addr, "GET", "/paid/a").with(|r| r.extra = "Range: bytes=0-1\r\n".into()).head(),
    );
    assert!(paid.status == 206 && paid.header("payment-response").is_some());
}

#[test]
fn connections_are_kept_on_both_sides() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, "").replace("cores = 2", "cores = 1"));
    let mut connection = Connection::open(gateway.addr);
    for i in 0..20 {
        let answer = connection.send(format!("GET /{i} HTTP/1.1\r\nHost: x\r\n\r\n")).unwrap();
        assert_eq!(answer.text(), format!("content of /{i}"));
    }
    assert!(origin.seen().iter().all(|s| s.connection == 0), "more than one origin connection");
    assert_eq!(get(gateway.addr, "/last").status, 200);
}

#[test]
fn a_get_keeps_its_chunked_body_and_trailers_say_nothing_for_the_gateway() {
    let origin = Origin::scripted(|_, socket| {
        socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Payment-Response\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 42\r\nPayment-Response: fake\r\n\r\n").is_ok()
    });
    let agent = Agent::start();
    let gateway = paid_site(&origin, &agent);
    let answer = exchange(
        gateway.addr,
        "GET /search HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: close, TE\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nquery\r\n0\r\n\r\n",
    );
    assert_eq!(origin.last().body, b"query");
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "42".to_owned())], "{answer:?}");
}
