//! Fields that end at this hop, and fields that only the gateway says.

use crate::support::client::get;
use crate::support::*;

fn forwarded(lines: &str) -> Seen {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let answer =
        exchange(gateway.addr, format!("GET /a HTTP/1.1\r\nHost: site.example\r\n{lines}Connection: close\r\n\r\n"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    origin.last()
}

#[test]
fn no_client_can_say_what_the_gateway_says() {
    let seen = forwarded(
        "Tollgate-Agent: x\r\nTollgate-Account: x\r\nTollgate_Account: x\r\ntollgate-PAYMENT-id: x\r\nTollgate-Anything: x\r\n\
         X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nForwarded: for=6.6.6.6\r\n\
         X-Real-IP: 6.6.6.6\r\nX-Original-URL: /paid/a\r\nX-Rewrite-URL: /paid/a\r\nX-HTTP-Method-Override: DELETE\r\n\
         PAYMENT-SIGNATURE: x\r\nX-PAYMENT: e30=\r\nUser-Agent: kept\r\nAuthorization: kept\r\nCookie: kept\r\n",
    );
    for name in [
        "tollgate-agent",
        "tollgate-account",
        "tollgate_account",
        "tollgate-payment-id",
        "tollgate-anything",
        "x-forwarded-port",
        "forwarded",
        "x-real-ip",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method-override",
        "payment-signature",
        "x-payment",
    ] {
        assert!(!seen.has(name), "{name}: {seen:?}");
    }
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("site.example"));
    assert_eq!(seen.header("host"), Some("site.example"));
    assert_eq!(seen.header("via"), Some("1.1 tollgate"));
    for name in ["user-agent", "authorization", "cookie"] {
        assert_eq!(seen.header(name), Some("kept"));
    }
}

#[test]
fn hop_by_hop_fields_end_here_in_both_directions() {
    let origin = Origin::scripted(|_, socket| {
        use std::io::Write as _;
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: x\r\nETag: kept\r\n\r\n").is_ok()
    });
    let agent = Agent::start();
    let gateway = paid_site(&origin, &agent);
    let answer = exchange(
        gateway.addr,
        "GET /a HTTP/1.1\r\nHost: x\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 1\r\nTE: gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nProxy-Authorization: x\r\nProxy-Connection: x\r\n\r\n",
    );
    for name in ["x-hop", "keep-alive", "proxy-authenticate"] {
        assert!(answer.header(name).is_none(), "{name}");
    }
    assert_eq!(answer.header("etag"), Some("kept"));
    let seen = origin.last();
    for name in [
        "x-mine",
        "keep-alive",
        "te",
        "upgrade",
        "http2-settings",
        "proxy-authorization",
        "proxy-connection",
        "connection",
    ] {
        assert!(!seen.has(name), "{name}: {seen:?}");
    }
}

#[test]
fn connection_cannot_list_what_we_decide_on() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    for name in ["Content-Length", "host", "PAYMENT", "Signature", "signature-input", "Signature-Agent", "X-Payment"] {
        let answer = exchange(gateway.addr, format!("GET /a HTTP/1.1\r\nHost: x\r\nConnection: close, {name}\r\n\r\n"));
        assert_eq!((answer.status, answer.reason()), (400, "bad_framing"), "{name}");
    }
    assert_eq!(origin.calls(), 0);
}

#[test]
fn a_paid_request_carries_the_gateways_word_and_only_that() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let request = agent
        .request(gateway.addr, "GET", "/paid/a")
        .with(|r| r.extra = "Tollgate-Account: root\r\nTollgate_Account: root\r\n".into());
    assert_eq!(exchange(gateway.addr, request.head()).status, 200);
    let seen = origin.last();
    let said: Vec<_> =
        seen.headers.iter().filter(|(n, _)| n.to_ascii_lowercase().replace('_', "-") == "tollgate-account").collect();
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].1, "acme");
}

#[test]
fn a_route_may_allow_overrides_and_the_origins_own_host() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let more = "[[routes]]\npath = \"/app/*\"\nprice = \"free\"\nallow_method_override = true\n";
    let toml = site_toml(&origin, &agent, more).replace("[deferred]", "host_header = \"origin\"\n[deferred]");
    let gateway = Gateway::start(&toml);
    exchange(
        gateway.addr,
        "POST /app/a HTTP/1.1\r\nHost: x\r\nX-HTTP-Method-Override: PUT\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
    let seen = origin.last();
    assert_eq!(
        (seen.header("x-http-method-override"), seen.header("host")),
        (Some("PUT"), Some(origin.addr.to_string().as_str()))
    );
}

#[test]
fn limits_on_heads_have_their_statuses() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let with =
        |line: &str| exchange(gateway.addr, format!("GET /a HTTP/1.1\r\nHost: x\r\n{line}Connection: close\r\n\r\n"));
    assert_eq!(with(&format!("X: {}\r\n", "a".repeat(70_000))).status, 431);
    assert_eq!(with(&"X: a\r\n".repeat(101)).status, 431);
    assert_eq!(get(gateway.addr, &format!("/{}", "a".repeat(9_000))).status, 414);
    assert_eq!(origin.calls(), 0);
    assert_eq!(with(&"X: a\r\n".repeat(90)).status, 200);
}
