//! Requests that two parsers could read differently never reach the origin.

use crate::support::client::Connection;
use crate::support::*;

/// Sends bytes; the origin must see at most `calls` requests, none of them `/smuggled`, and the answer must be `expect`
/// (0: the connection just ends).
fn check(bytes: &str, expect: &[u16], calls: usize) {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let mut connection = Connection::open(gateway.addr);
    connection.write(bytes);
    // A client that stops sending may be taken for one that left: only where that is an answer, too.
    let cut = expect.contains(&0);
    if cut {
        connection.socket.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let status = connection.read(false).map_or(0, |a| a.status);
    if !cut {
        let _ = connection.socket.shutdown(std::net::Shutdown::Write);
    }
    assert!(expect.contains(&status), "{bytes:?}: {status}");
    while connection.read(false).is_some() {}
    let seen = origin.seen();
    assert!(seen.len() <= calls, "{bytes:?}: {seen:?}");
    assert!(seen.iter().all(|s| !s.path().contains("smuggled")), "{bytes:?}: {seen:?}");
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn content_length_and_transfer_encoding_together_never_carry_a_second_request() {
    // hyper drops Content-Length, reads chunks and closes, as RFC 9112 §6.1 allows.
    for (a, b) in
        [("Content-Length: 4", "Transfer-Encoding: chunked"), ("Transfer-Encoding: chunked", "Content-Length: 4")]
    {
        check(&format!("POST /a HTTP/1.1\r\nHost: x\r\n{a}\r\n{b}\r\n\r\n0\r\n\r\n{SMUGGLED}"), &[200, 400], 1);
    }
}

#[test]
fn a_transfer_encoding_other_than_chunked_is_refused() {
    for value in [
        "chunked, chunked",
        "gzip, chunked",
        "identity",
        "chunked, identity",
        "xchunked",
        "chunked;q=1",
        "\"chunked\"",
        "",
    ] {
        check(
            &format!("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {value}\r\n\r\n0\r\n\r\n{SMUGGLED}"),
            &[400],
            0,
        );
    }
    check(
        &format!(
            "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"
        ),
        &[400],
        0,
    );
    check(&format!("POST /a HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"), &[400], 0);
    check(&format!("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"), &[400], 0);
}

#[test]
fn an_underscored_transfer_encoding_is_dropped() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let answer =
        exchange(gateway.addr, "GET /a HTTP/1.1\r\nHost: x\r\nTransfer_Encoding: chunked\r\nConnection: close\r\n\r\n");
    assert_eq!(answer.status, 200);
    assert!(origin.last().headers.iter().all(|(n, _)| !n.contains('_')));
}

#[test]
fn a_content_length_that_is_no_number_is_refused() {
    for value in ["+5", "-1", "5, 5", "5 5", "0x5", "5;", "", "99999999999999999999", "５"] {
        check(&format!("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: {value}\r\n\r\nhello{SMUGGLED}"), &[400], 0);
    }
    check("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", &[400], 0);
}

#[test]
fn malformed_heads_are_refused() {
    for head in [
        "GET /a HTTP/1.1\r\nHost: x\r\nNo colon\r\n\r\n",
        "GET  /a HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /a\r\nHost: x\r\n\r\n",
        "GET /a HTTP/9.9\r\nHost: x\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: x\r\nA: b\r\n folded\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: x\r\n: empty\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: x\r\nA: a\0b\r\n\r\n",
        "G@T /a HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
    ] {
        // hyper takes two blanks in a request line as one; the origin gets a request line of ours.
        let calls = usize::from(head.starts_with("GET  "));
        check(head, &[400, 0, 200], calls);
    }
}

#[test]
fn chunks_that_are_not_well_formed_never_become_a_request() {
    for body in [
        "5\r\nhelloX\r\n0\r\n\r\n",
        "zz\r\n",
        "5;\r\nhel",
        "-1\r\n\r\n",
        "5\nhello\n0\n\n",
        "ffffffffffffffffff\r\n",
        "5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
    ] {
        check(
            &format!("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}{SMUGGLED}"),
            &[400, 200, 502, 0],
            1,
        );
    }
}

#[test]
fn a_broken_request_body_is_the_clients_fault() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let answer = exchange(
        gateway.addr,
        "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    );
    assert_eq!((answer.status, answer.reason()), (400, "bad_request"));
}

#[test]
fn request_trailers_are_dropped() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let answer = exchange(
        gateway.addr,
        "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: Payment\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\nPayment: x\r\nTollgate-Account: x\r\n\r\n",
    );
    assert_eq!(answer.status, 200);
    let seen = origin.last();
    assert_eq!((seen.body.as_slice(), seen.trailers.len(), seen.has("trailer")), (&b"hello"[..], 0, false));
}

#[test]
fn a_402_with_an_unread_body_does_not_desynchronise_the_connection() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    // Small: read away, the connection goes on.
    let mut connection = Connection::open(gateway.addr);
    let small = connection.send("POST /paid/a HTTP/1.1\r\nHost: x\r\nContent-Length: 37\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n\r\n").unwrap();
    assert_eq!(small.status, 402);
    assert_eq!(connection.send("GET /next HTTP/1.1\r\nHost: x\r\n\r\n").unwrap().text(), "content of /next");
    // Large: the answer arrives, the connection ends.
    let mut connection = Connection::open(gateway.addr);
    let body = SMUGGLED.repeat(20_000);
    let large =
        connection.send(format!("POST /paid/a HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    assert_eq!(large.unwrap().status, 402);
    assert!(connection.closed());
    assert!(origin.seen().iter().all(|s| !s.path().contains("smuggled")));
}

#[test]
fn expect_100_is_answered_only_after_the_gate() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let mut connection = Connection::open(gateway.addr);
    connection.write("POST /paid/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let mut first = [0; 12];
    std::io::Read::read_exact(&mut connection.reader, &mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 402");
    let mut connection = Connection::open(gateway.addr);
    connection.write("POST /free HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    std::io::Read::read_exact(&mut connection.reader, &mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 100");
    let mut rest = String::new();
    while !rest.ends_with("\r\n\r\n") {
        std::io::BufRead::read_line(&mut connection.reader, &mut rest).unwrap();
    }
    connection.write("hello");
    assert_eq!(connection.read(false).unwrap().status, 200);
    assert!(!origin.last().has("expect"));
}

#[test]
fn connect_and_trace_are_not_served() {
    for request in ["CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", "TRACE /a HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let (origin, agent) = (Origin::start(), Agent::start());
        let gateway = paid_site(&origin, &agent);
        let answer = exchange(gateway.addr, request);
        assert!(matches!(answer.status, 501 | 400) && origin.calls() == 0, "{request:?}: {answer:?}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let mut connection = Connection::open(gateway.addr);
    connection.write(
        "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /paid/2 HTTP/1.1\r\nHost: x\r\n\r\nGET /3 HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    let statuses: Vec<_> =
        (0..3).map(|_| connection.read(false).unwrap()).map(|a| (a.status, a.text().ends_with("/3"))).collect();
    assert_eq!(statuses, [(200, false), (402, false), (200, true)]);
}
