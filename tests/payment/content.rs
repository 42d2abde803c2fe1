//! `Content-Digest` under the signature that pays: the body is the one that was signed for, or nothing is charged.

use std::io::{Read as _, Write as _};
use std::sync::Mutex;
use std::sync::mpsc::channel;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256, Sha512};

use crate::support::agent::Signed;
use crate::support::client::Connection;
use crate::support::gateway::tollgate;
use crate::support::*;

const BODY: &str = "{\"hello\": \"world\"}";
/// Of the same length.
const OTHER: &str = "{\"hello\": \"worle\"}";

fn sha256(body: &str) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)))
}

fn sha512(body: &str) -> String {
    format!("sha-512=:{}:", STANDARD.encode(Sha512::digest(body)))
}

/// A fresh POST that covers this digest, or only says to.
fn post(agent: &Agent, gateway: &Gateway, digest: Option<String>) -> Signed {
    agent.request(gateway.addr, "POST", "/paid/form").with(|r| {
        r.covers.push("content-digest".into());
        r.signed.extend(digest.map(|digest| ("content-digest".to_owned(), digest)));
    })
}

fn with_length(request: &Signed, body: &str) -> String {
    request.head_with(&format!("Content-Length: {}\r\nConnection: close\r\n", body.len())) + body
}

fn chunked(request: &Signed, body: &str) -> String {
    let chunk = |part: &str| format!("{:x}\r\n{part}\r\n", part.len());
    let (first, second) = body.split_at(body.len() / 2);
    let head = request.head_with("Transfer-Encoding: chunked\r\nConnection: close\r\n");
    [head, chunk(first), chunk(second), "0\r\n\r\n".to_owned()].concat()
}

/// How many postings the ledger has; the gateway is stopped.
fn postings(gateway: Gateway) -> usize {
    let dir = gateway.stop().1;
    let (code, out, err) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{err}");
    out.lines().count()
}

#[test]
fn the_body_that_was_signed_for_buys() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let both = format!("{}, {}, md5=:AAAA:", sha256(BODY), sha512(BODY));
    for digest in [sha256(BODY), sha512(BODY), both] {
        for framed in [with_length, chunked] {
            let answer = exchange(gateway.addr, framed(&post(&agent, &gateway, Some(digest.clone())), BODY));
            assert_eq!(answer.status, 200, "{digest}: {answer:?}");
            assert_eq!(origin.last().body, BODY.as_bytes());
        }
    }
    let empty = post(&agent, &gateway, Some(sha256("")));
    assert_eq!(exchange(gateway.addr, empty.head()).status, 200);
    assert_eq!(postings(gateway), 7);
}

#[test]
fn another_body_is_broken_off_and_the_payment_is_good_again() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let one_is_wrong = format!("{}, {}", sha256(OTHER), sha512(BODY));
    for digest in [sha256(BODY), sha512(BODY), one_is_wrong] {
        for framed in [with_length, chunked] {
            let request = post(&agent, &gateway, Some(digest.clone()));
            let seen = origin.calls();
            let answer = exchange(gateway.addr, framed(&request, OTHER));
            assert_eq!((answer.status, answer.reason()), (400, "content_digest_mismatch"), "{digest}: {answer:?}");
            // A request without its end is none.
            assert_eq!(origin.calls(), seen, "{digest}");
            if !digest.contains(", ") {
                assert_eq!(exchange(gateway.addr, framed(&request, BODY)).status, 200, "{digest}");
            }
        }
    }
    let empty = post(&agent, &gateway, Some(sha256(BODY)));
    assert_eq!(exchange(gateway.addr, empty.head()).reason(), "content_digest_mismatch");
    assert_eq!(postings(gateway), 4);
}

#[test]
fn what_cannot_be_checked_is_refused_before_the_origin_is_asked() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    for digest in ["md5=:AAAA:", "sha-256=:AAAA:", "sha-256", "\"text\""] {
        let answer = exchange(gateway.addr, with_length(&post(&agent, &gateway, Some(digest.into())), BODY));
        assert_eq!((answer.status, answer.reason()), (400, "invalid_signature"), "{digest}");
    }
    let request = post(&agent, &gateway, Some(sha256(BODY)));
    let without = with_length(&request, BODY).replace(&format!("content-digest: {}\r\n", sha256(BODY)), "");
    let answer = exchange(gateway.addr, without);
    assert_eq!((answer.status, answer.reason()), (400, "invalid_signature"), "{answer:?}");
    assert_eq!((origin.calls(), postings(gateway)), (0, 0));
}

/// The head of an answer says nothing about a body that has not ended.
#[test]
fn an_early_answer_waits_for_the_end_of_the_body() {
    let (sent, answered) = channel();
    let (sent, answered) = (Mutex::new(sent), answered);
    let origin = Origin::scripted_heads(move |_, socket| {
        let told = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nearly").is_ok();
        sent.lock().unwrap().send(()).unwrap();
        // Until the gateway has sent its last byte, or breaks off.
        while told && socket.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {}
        false
    });
    let agent = Agent::start();
    let gateway = paid_site(&origin, &agent);
    let buy = |body: &str| {
        let request = post(&agent, &gateway, Some(sha256(BODY)));
        let text = with_length(&request, body);
        let (most, last) = text.split_at(text.len() - 1);
        let mut connection = Connection::open(gateway.addr);
        connection.write(most);
        answered.recv().unwrap();
        connection.send(last).unwrap()
    };
    let answer = buy(OTHER);
    assert_eq!((answer.status, answer.reason()), (400, "content_digest_mismatch"), "{answer:?}");
    let answer = buy(BODY);
    assert_eq!((answer.status, answer.text().as_str()), (200, "early"), "{answer:?}");
    assert_eq!(postings(gateway), 1);
}

/// Nobody knows whether a body would have fitted that the origin did not read.
#[test]
fn an_origin_that_answers_and_closes_is_not_paid() {
    let origin = Origin::scripted_heads(|_, socket| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nearly");
        false
    });
    let agent = Agent::start();
    let gateway = paid_site(&origin, &agent);
    let text = with_length(&post(&agent, &gateway, Some(sha256(BODY))), BODY);
    let (most, _) = text.split_at(text.len() - 1);
    let answer = Connection::open(gateway.addr).send(most).unwrap();
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(postings(gateway), 0);
}
