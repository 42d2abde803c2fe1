//! One normal form decides the price and goes upstream.

use crate::support::client::get;
use crate::support::*;

#[test]
fn no_spelling_of_a_priced_path_is_free() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    for path in [
        "/paid/a",
        "/paid",
        "/paid/",
        "/p%61id/a",
        "/%70%61%69%64/a",
        "/paid/%61",
        "/paid?x",
        "/paid/a?b=/free",
        "/paid/..a",
    ] {
        assert_eq!(get(gateway.addr, path).status, 402, "{path}");
    }
    for path in [
        "/free/../paid/a",
        "/./paid/a",
        "//paid/a",
        "/paid//a",
        "/free/..%2fpaid/a",
        "/free%2f..%2fpaid/a",
        "/paid%2fa",
        "/paid;x/a",
        "/paid/a;x",
        "/free/%2e%2e/paid/a",
        "/free/.%2e/paid/a",
        "/paid\\a",
        "/free/..%5cpaid",
        "/%2570aid/a",
        "/paid%00",
        "/paid/%c0%ae",
        "/paid/%ff",
        "/free/%252e%252e/paid",
        "/free/%zz",
        "/free/x%",
        "/free/%a",
        "/free/%%61",
    ] {
        let answer = get(gateway.addr, path);
        assert!(answer.status == 400, "{path}: {} {}", answer.status, answer.reason());
    }
    assert_eq!(origin.calls(), 0);
}

#[test]
fn what_is_matched_is_what_is_forwarded() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    for (sent, expect) in [
        ("/%66ree?x=%66", "/free?x=%66"),
        ("/a%2db", "/a-b"),
        ("/a%c3%a9", "/a%C3%A9"),
        ("/a%20b", "/a%20b"),
        ("/a?", "/a?"),
        ("/a?x=/../y", "/a?x=/../y"),
    ] {
        assert_eq!(get(gateway.addr, sent).status, 200, "{sent}");
        assert_eq!(origin.last().path(), expect);
    }
}

#[test]
fn hosts_without_a_priced_route_pass_paths_on() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "")
        .replace("path = \"/paid/*\"", "host = \"paid.example\"\npath = \"/paid/*\"")
        .replace("[server]", "[server]\nhosts = [\"free.example\"]");
    let gateway = Gateway::start(&toml);
    let on = |host: &str, path: &str| {
        exchange(gateway.addr, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    };
    assert_eq!(on("free.example", "/a//b;c").status, 200);
    assert_eq!(origin.last().path(), "/a//b;c");
    assert_eq!(on("PAID.example", "/paid/a").status, 402);
    assert_eq!(on("paid.example.:80", "/paid/a").status, 402);
    assert_eq!(on("paid.example", "/a//b").status, 400);
    let other = on("other.example", "/paid/a");
    assert_eq!((other.status, other.reason()), (421, "misdirected_host"));
}

#[test]
fn a_host_in_doubt_is_refused() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    for head in [
        "GET /a HTTP/1.1\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\nHost: a\r\n",
        "GET /a HTTP/1.1\r\nHost: \r\n",
        "GET /a HTTP/1.1\r\nHost: a b\r\n",
        "GET /a HTTP/1.1\r\nHost: a/b\r\n",
        "GET /a HTTP/1.1\r\nHost: u@a\r\n",
        "GET /a HTTP/1.1\r\nHost: a,b\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: b\r\n",
        "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n",
        "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n",
    ] {
        let answer = exchange(gateway.addr, format!("{head}Connection: close\r\n\r\n"));
        assert_eq!(answer.status, 400, "{head}: {answer:?}");
    }
    assert_eq!(origin.calls(), 0);
    let absolute =
        exchange(gateway.addr, "GET http://a.example/paid/x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    assert_eq!(absolute.status, 402);
    let absolute =
        exchange(gateway.addr, "GET http://a.example/free HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    assert_eq!((absolute.status, origin.last().line.as_str()), (200, "GET /free HTTP/1.1"));
}

#[test]
fn a_pattern_that_does_not_name_the_method_says_which_it_takes() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let more = "[[routes]]\npath = \"/api/{id}\"\nmethods = [\"GET\", \"POST\"]\nprice = \"0.02 USD\"\n[[routes]]\npath = \"/api/free\"\nprice = \"free\"\n";
    let gateway = Gateway::start(&site_toml(&origin, &agent, more));
    let send = |method: &str, path: &str| {
        exchange(
            gateway.addr,
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        )
    };
    let answer = send("DELETE", "/api/7");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD, POST")));
    assert_eq!(
        (send("HEAD", "/api/7").status, send("POST", "/api/7").status, send("DELETE", "/api/free").status),
        (402, 402, 200)
    );
}

#[test]
fn options_of_the_whole_server_is_free_and_the_origins_to_answer() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let everything = site_toml(&origin, &agent, "").replace("/paid/*", "/*");
    let gateway = Gateway::start(&everything.replace("[server]", "[server]\nhosts = [\"x\"]"));
    let send = |head: &str| exchange(gateway.addr, format!("{head}\r\nConnection: close\r\n\r\n"));
    assert_eq!(send("OPTIONS * HTTP/1.1\r\nHost: x").status, 200);
    assert_eq!(origin.last().line, "OPTIONS * HTTP/1.1");
    let preflight = "OPTIONS * HTTP/1.1\r\nHost: x\r\nOrigin: http://y\r\nAccess-Control-Request-Method: GET";
    assert_eq!(send(preflight).status, 200);
    assert_eq!(origin.calls(), 2);
    assert_eq!(send("OPTIONS * HTTP/1.1\r\nHost: y").status, 421);
    assert_eq!(send("GET * HTTP/1.1\r\nHost: x").status, 400);
    assert_eq!(send("OPTIONS / HTTP/1.1\r\nHost: x").status, 402);
    assert_eq!(origin.calls(), 2);
}

#[test]
fn a_free_exception_is_exact() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, "[[routes]]\npath = \"/paid/open\"\nprice = \"free\"\n"));
    assert_eq!(get(gateway.addr, "/paid/open").status, 200);
    assert_eq!(get(gateway.addr, "/paid/open/").status, 402);
}
