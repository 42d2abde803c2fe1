//! What is charged: the origin's success, durable before the first byte; nothing else.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use crate::support::client::Connection;
use crate::support::gateway::tollgate;
use crate::support::*;

/// The ledger's rows after the gateway ended, newest first.
fn rows(gateway: Gateway) -> Vec<serde_json::Value> {
    let (_, dir) = gateway.stop();
    let (code, out, err) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{err}");
    let (code, audit, err) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{audit}{err}");
    out.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn answering(status: &'static str) -> Origin {
    Origin::scripted(move |_, socket| write!(socket, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno").is_ok())
}

#[test]
fn an_origin_that_does_not_succeed_is_not_charged_and_the_payment_stays_good() {
    for status in ["404 Not Found", "500 Oops", "301 Moved"] {
        let (origin, agent) = (answering(status), Agent::start());
        let gateway = paid_site(&origin, &agent);
        let head = agent.request(gateway.addr, "GET", "/paid/page").head();
        for _ in 0..2 {
            let answer = exchange(gateway.addr, &head);
            assert_eq!(answer.status.to_string(), status[..3]);
            assert!(answer.header("payment-response").is_none());
        }
        assert_eq!(origin.calls(), 2);
        assert_eq!(rows(gateway).len(), 0);
    }
}

#[test]
fn not_modified_is_not_charged() {
    let origin =
        Origin::scripted(|_, socket| write!(socket, "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n").is_ok());
    let agent = Agent::start();
    let gateway = paid_site(&origin, &agent);
    let answer = agent.buy(gateway.addr, "/paid/page");
    assert_eq!((answer.status, answer.header("payment-response")), (304, None));
    assert_eq!(rows(gateway).len(), 0);
}

#[test]
fn an_id_that_failed_three_times_is_spent_uncharged() {
    let (origin, agent) = (answering("500 Oops"), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let head = agent.request(gateway.addr, "GET", "/paid/page").head();
    let statuses: Vec<u16> = (0..4).map(|_| exchange(gateway.addr, &head).status).collect();
    assert_eq!(statuses, [500, 500, 500, 402]);
    assert_eq!((origin.calls(), rows(gateway).len()), (3, 0));
}

#[test]
fn an_origin_that_is_unreachable_or_breaks_off_before_its_head_is_not_charged() {
    let origin = Origin::scripted(|_, _| false);
    let agent = Agent::start();
    let gateway = paid_site(&origin, &agent);
    let answer = agent.buy(gateway.addr, "/paid/page");
    assert_eq!((answer.status, answer.reason()), (502, "origin_invalid"));
    assert_eq!(rows(gateway).len(), 0);

    let gateway = Gateway::start(&site_toml(&origin, &agent, "").replace(&origin.addr.to_string(), "127.0.0.1:1"));
    let answer = agent.buy(gateway.addr, "/paid/page");
    assert_eq!((answer.status, answer.reason()), (502, "origin_unreachable"));
    assert_eq!(rows(gateway).len(), 0);
}

#[test]
fn an_origin_that_cuts_its_answer_is_charged_and_voided() {
    let origin = Origin::scripted(|_, socket| {
        let _ = write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        false
    });
    let agent = Agent::start();
    let gateway = paid_site(&origin, &agent);
    let answer = agent.buy(gateway.addr, "/paid/page");
    assert!(answer.status == 200 && answer.truncated, "{answer:?}");
    let rows = rows(gateway);
    let kinds: Vec<_> = rows.iter().map(|r| r["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["void", "capture"], "{rows:?}");
    assert_eq!(rows[1]["outcome"]["delivery"], "origin_cut");
}

#[test]
fn a_client_that_stalled_before_the_origin_cut_is_charged() {
    let (full, stalled) = mpsc::channel();
    let full = Mutex::new(full);
    let origin = Origin::scripted(move |_, socket| {
        let _ = write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        // Until nobody takes anything any more: the client does not read.
        socket.set_write_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
        while socket.write_all(&[b'x'; 65536]).is_ok() {}
        full.lock().unwrap().send(()).unwrap();
        false
    });
    let agent = Agent::start();
    let gateway = paid_site(&origin, &agent);
    let mut connection = Connection::open(gateway.addr);
    connection.write(agent.request(gateway.addr, "GET", "/paid/page").head());
    stalled.recv().unwrap();
    let answer = connection.read(false).unwrap();
    assert!(answer.status == 200 && answer.truncated, "{} {}", answer.status, answer.body.len());
    let rows = rows(gateway);
    assert_eq!((rows.len(), rows[0]["outcome"]["delivery"].as_str()), (1, Some("origin_cut")), "{rows:?}");
}

#[test]
fn a_client_that_leaves_before_the_head_cancels_the_origin_call_uncharged() {
    let (seen, arrived) = mpsc::channel();
    let (seen, gone) = (Mutex::new(seen), Arc::new(Mutex::new(None)));
    let (told, calls) = (gone.clone(), AtomicUsize::new(0));
    let origin = Origin::scripted(move |_, socket| {
        if calls.fetch_add(1, Ordering::Relaxed) > 0 {
            return false;
        }
        seen.lock().unwrap().send(()).unwrap();
        // Blocks until the gateway closes: the call was cancelled.
        let read = socket.read(&mut [0; 1]).map_or(0, |n| n);
        *told.lock().unwrap() = Some(read);
        seen.lock().unwrap().send(()).unwrap();
        false
    });
    let agent = Agent::start();
    let gateway = paid_site(&origin, &agent);
    let request = agent.request(gateway.addr, "GET", "/paid/page");
    let mut connection = Connection::open(gateway.addr);
    connection.write(request.head());
    arrived.recv().unwrap();
    drop(connection);
    // The same payment is good again once the first attempt was released.
    let mut connection = Connection::open(gateway.addr);
    let mut answer = connection.send(request.head_with("")).unwrap();
    while answer.reason() == "payment_in_flight" {
        answer = connection.send(request.head_with("")).unwrap();
    }
    assert_eq!(answer.status, 502, "{answer:?}");
    arrived.recv().unwrap();
    assert_eq!(*gone.lock().unwrap(), Some(0));
    drop(connection);
    assert_eq!(rows(gateway).len(), 0);
}

#[test]
fn a_client_that_leaves_after_the_capture_is_charged() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::scripted(move |_, socket| {
        let sent = write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst").is_ok();
        let _ = wait.lock().unwrap().recv();
        sent && socket.write_all(b"last").is_ok()
    });
    let agent = Agent::start();
    let gateway = paid_site(&origin, &agent);
    let mut connection = Connection::open(gateway.addr);
    connection.write(agent.request(gateway.addr, "GET", "/paid/page").head());
    let mut byte = [0; 1];
    connection.socket.read_exact(&mut byte).unwrap();
    drop(connection);
    go.send(()).unwrap();
    let rows = rows(gateway);
    assert_eq!((rows.len(), rows[0]["kind"].as_str()), (1, Some("capture")), "{rows:?}");
    assert!(matches!(rows[0]["outcome"]["delivery"].as_str(), Some("client_left" | "complete")), "{rows:?}");
}

#[test]
fn what_an_origin_says_about_payments_reaches_nobody() {
    let origin = Origin::scripted(|_, socket| {
        write!(
            socket,
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nPayment-Response: fake\r\nX-PAYMENT-RESPONSE: fake\r\nPAYMENT-REQUIRED: fake\r\nTollgate-Reason: fake\r\nCache-Control: public, max-age=9\r\n\r\n"
        )
        .is_ok()
    });
    let agent = Agent::start();
    let gateway = paid_site(&origin, &agent);
    let free = crate::support::client::get(gateway.addr, "/free");
    assert!(free.headers.iter().all(|(_, v)| v != "fake"), "{free:?}");
    let paid = agent.buy(gateway.addr, "/paid/page");
    assert!(paid.headers.iter().all(|(_, v)| v != "fake") && paid.header("payment-response").is_some(), "{paid:?}");
    assert_eq!(paid.header("cache-control"), Some("private, max-age=9"));
}

#[test]
fn a_part_is_not_sold_for_nothing_where_only_200_is_charged() {
    let origin = Origin::scripted(|seen, socket| {
        let status = if seen.has("range") { "206 Partial Content" } else { "200 OK" };
        write!(socket, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nhi").is_ok()
    });
    let agent = Agent::start();
    let priced = "price = \"0.01 USD\"";
    let toml = site_toml(&origin, &agent, "").replace(priced, &format!("{priced}\ncharge_on = [200]"));
    let gateway = Gateway::start(&toml);
    let request = agent.request(gateway.addr, "GET", "/paid/a").with(|r| r.extra = "Range: bytes=0-\r\n".into());
    let answer = exchange(gateway.addr, request.head());
    assert_eq!((answer.status, answer.header("payment-response").is_some()), (200, true));
}

#[test]
fn a_cache_in_front_is_told_nothing_that_overrides_private() {
    let origin = Origin::scripted(|_, socket| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nCDN-Cache-Control: max-age=9\r\nSurrogate-Control: max-age=9\r\nX-Accel-Expires: 9\r\n\r\n";
        socket.write_all(head.as_bytes()).is_ok()
    });
    let agent = Agent::start();
    let gateway = paid_site(&origin, &agent);
    let paid = agent.buy(gateway.addr, "/paid/page");
    assert_eq!(paid.header("cache-control"), Some("private"));
    let tells = |n: &str| n.contains("cdn") || n.contains("surrogate") || n.contains("accel");
    assert!(paid.headers.iter().all(|(n, _)| !tells(n)), "{paid:?}");
}

#[test]
fn a_client_that_leaves_at_any_moment_is_not_charged_for_what_it_never_got() {
    for round in 0..10 {
        let (origin, agent) = (Origin::start(), Agent::start());
        let gateway = paid_site(&origin, &agent);
        let mut connection = Connection::open(gateway.addr);
        connection.write(agent.request(gateway.addr, "GET", "/paid/page").head());
        while origin.calls() == 0 {
            std::thread::yield_now();
        }
        drop(connection);
        // Each capture has an outcome in the end, and one that was not sent is void.
        for row in rows(gateway).iter().filter(|r| r["kind"] == "capture") {
            let delivery = row["outcome"]["delivery"].as_str().unwrap_or_else(|| panic!("round {round}: {row}"));
            assert_eq!(delivery == "not_sent", row["state"] == "voided", "round {round}: {row}");
        }
    }
}

#[test]
fn a_client_that_breaks_its_own_request_off_cannot_void_what_it_read() {
    // The origin answers before the request's body has ended, and waits for more.
    let origin = Origin::scripted_heads(|_, socket| {
        let sent = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nthe content that counts").is_ok();
        sent && socket.read(&mut [0; 1]).is_ok_and(|n| n > 0)
    });
    let agent = Agent::start();
    let gateway = paid_site(&origin, &agent);
    let mut connection = Connection::open(gateway.addr);
    let request = agent.request(gateway.addr, "POST", "/paid/page");
    connection.write(request.head_with("Transfer-Encoding: chunked\r\n") + "1\r\na\r\n");
    let mut got = Vec::new();
    while !got.ends_with(b"the content that counts") {
        let mut byte = [0; 1];
        connection.socket.read_exact(&mut byte).unwrap();
        got.push(byte[0]);
    }
    connection.write("not a chunk\r\n");
    while !connection.closed() {}
    let rows = rows(gateway);
    assert_eq!((rows.len(), rows[0]["kind"].as_str()), (1, Some("capture")), "{rows:?}");
}
