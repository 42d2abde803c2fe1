//! What proxies in front say about their clients: believed where they are trusted, and nowhere else.

use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::support::client::{Answer, PATIENCE, exchange, read_answer};
use crate::support::*;

fn site(origin: &Origin, agent: &Agent, server: &str) -> Gateway {
    let toml = site_toml(origin, agent, "").replace("drain_seconds = 2\n", &format!("drain_seconds = 2\n{server}\n"));
    Gateway::start(&toml)
}

fn ask(addr: SocketAddr, fields: &str) -> Answer {
    exchange(addr, format!("GET /paid/a HTTP/1.1\r\nHost: {addr}\r\n{fields}\r\n"))
}

fn free(addr: SocketAddr, fields: &str) -> Answer {
    exchange(addr, format!("GET /a HTTP/1.1\r\nHost: {addr}\r\n{fields}\r\n"))
}

const SAID: &str = "X-Forwarded-For: 203.0.113.1, 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\
                    X-Forwarded-Host: shop.example\r\nForwarded: for=198.51.100.1;host=other.example\r\n";

#[test]
fn nobody_is_believed_by_default() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = site(&origin, &agent, "");
    let offer = ask(gateway.addr, SAID);
    assert_eq!(offer.json()["accepts"][0]["resource"], format!("http://{}/paid/a", gateway.addr));
    free(gateway.addr, SAID);
    let seen = origin.last();
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some(gateway.addr.to_string().as_str()));
    assert!(!seen.has("forwarded"));
}

#[test]
fn a_trusted_proxy_tells_address_scheme_and_host() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = site(&origin, &agent, "trusted_proxies = [\"127.0.0.0/8\"]");
    let offer = ask(gateway.addr, SAID);
    assert_eq!(offer.json()["accepts"][0]["resource"], "https://shop.example/paid/a");
    free(gateway.addr, SAID);
    let seen = origin.last();
    assert_eq!(seen.header("x-forwarded-for"), Some("192.0.2.7"), "what its client said before is not");
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-forwarded-host"), Some("shop.example"));
    assert_eq!(seen.header("host"), Some("shop.example"));
    assert!(!seen.has("forwarded"));
}

#[test]
fn a_signature_holds_for_the_host_that_the_agent_asked_for() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = site(&origin, &agent, "trusted_proxies = [\"127.0.0.1\"]");
    let fields = "X-Forwarded-Host: shop.example\r\nX-Forwarded-Proto: https\r\n";
    let id = ask(gateway.addr, fields).json()["accepts"][0]["extras"]["id"].as_str().unwrap().to_owned();
    let signed = agent.signed("shop.example", "GET", "/paid/a", &id);
    let mut lines = String::from(fields);
    signed.fields().iter().for_each(|(name, value)| lines += &format!("{name}: {value}\r\n"));
    let paid = ask(gateway.addr, &lines);
    assert_eq!((paid.status, paid.text().as_str()), (200, "content of /paid/a"), "{}", paid.reason());
}

#[test]
fn forwarded_is_read_where_it_is_what_the_proxy_sets() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = site(&origin, &agent, "trusted_proxies = [\"127.0.0.1\"]\nforwarded_fields = \"forwarded\"");
    free(gateway.addr, SAID);
    let seen = origin.last();
    assert_eq!(seen.header("x-forwarded-for"), Some("198.51.100.1"));
    assert_eq!(seen.header("x-forwarded-host"), Some("other.example"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"), "it said nothing of it");
}

#[test]
fn a_proxy_cannot_name_a_host_that_is_none_or_not_served() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = site(&origin, &agent, "trusted_proxies = [\"127.0.0.1\"]\nhosts = [\"shop.example\"]");
    assert_eq!(free(gateway.addr, "X-Forwarded-Host: shop.example\r\n").status, 200);
    assert_eq!(free(gateway.addr, "X-Forwarded-Host: evil.example\r\n").status, 421);
    assert_eq!(free(gateway.addr, "X-Forwarded-Host: a b\r\n").status, 400);
    let two = format!("Host: {}\r\nX-Forwarded-Host: shop.example\r\n", gateway.addr);
    assert_eq!(free(gateway.addr, &two).status, 400, "two hosts stay two");
}

fn by_protocol(addr: SocketAddr, header: &[u8]) -> Option<Answer> {
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET /a HTTP/1.1\r\nHost: {addr}\r\n\r\n");
    socket.write_all(&[header, request.as_bytes()].concat()).unwrap();
    read_answer(&mut BufReader::new(socket), false)
}

#[test]
fn the_proxy_protocol_tells_the_address() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = site(&origin, &agent, "trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true");
    let v2 = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c"[..], &[198, 51, 100, 9, 127, 0, 0, 1, 0xC0, 1, 0, 80]].concat();
    for (header, address) in [
        (&b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 80\r\n"[..], "192.0.2.7"),
        (&b"PROXY TCP6 2001:db8::9 ::1 4711 80\r\n"[..], "2001:db8::9"),
        (&b"PROXY UNKNOWN\r\n"[..], "127.0.0.1"),
        (&v2[..], "198.51.100.9"),
    ] {
        assert_eq!(by_protocol(gateway.addr, header).unwrap().status, 200, "{address}");
        assert_eq!(origin.last().header("x-forwarded-for"), Some(address));
    }
    assert!(by_protocol(gateway.addr, b"").is_none(), "a connection without the header is closed");
    // A client behind it is not itself trusted: what it says of others is not believed.
    let mut socket = TcpStream::connect(gateway.addr).unwrap();
    let request =
        "PROXY TCP4 192.0.2.7 127.0.0.1 4711 80\r\nGET /b HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n";
    socket.write_all(request.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut BufReader::new(socket), false).unwrap().status, 200);
    assert_eq!(origin.last().header("x-forwarded-for"), Some("192.0.2.7"));
}

#[test]
fn the_proxy_protocol_is_nothing_to_whom_nobody_trusts() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = site(&origin, &agent, "trusted_proxies = [\"192.0.2.0/24\"]\nproxy_protocol = true");
    assert_eq!(by_protocol(gateway.addr, b"").unwrap().status, 200, "served as it is");
    assert_eq!(origin.last().header("x-forwarded-for"), Some("127.0.0.1"));
    let answer = by_protocol(gateway.addr, b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 80\r\n");
    assert!(answer.is_none_or(|answer| answer.status == 400));
}
