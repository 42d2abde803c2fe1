//! `check --explain` and `explain-request`: what is said of a request, served or captured.

use crate::support::client::get;
use crate::support::gateway::tollgate;
use crate::support::*;

const ROUTES: &str = r#"
[server]
hosts = ["shop.example"]
[origin]
url = "http://127.0.0.1:8080"
[origins.blog]
url = "http://127.0.0.1:8081"
[identity]
allow = ["any"]
[open_accounts]
credit = "5 USD"
total = "500 USD"
[[accounts]]
name = "a"
agents = ["https://signer.example.com"]
credit = "1 USD"
[[routes]]
name = "all"
path = "/articles/*"
price = "0.01 USD"
[[routes]]
name = "dear"
path = "/articles/archive/*"
methods = ["GET"]
price = "0.05 USD"
origin = "blog"
charge = "agents"
[[routes.agents]]
agent = "https://signer.example.com"
price = "0.02 USD"
[[routes.agents]]
user_agent = "GPTBot"
block = true
[[routes]]
name = "teaser"
path = "/articles/archive/{year}/teaser"
price = "free"
"#;

fn explain(method: &str, url: &str) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tollgate.toml"), ROUTES).unwrap();
    let (code, out, err) = tollgate(dir.path(), &["check", "--explain", method, url]);
    (code, out + &err)
}

#[test]
fn a_route_is_named_with_its_price_and_why_it_is_that_one() {
    let (code, text) = explain("GET", "https://Shop.example/articles/archive/%61?q=1");
    assert_eq!(code, 0, "{text}");
    for part in [
        "path       /articles/archive/a",
        "`dear` (GET any host /articles/archive/*)",
        "0.05 USD by deferred",
        "people pass free",
        "any other agent that identity.allow admits, up to 5.00 USD a month and 500.00 USD together",
        "https://signer.example.com (proven) pay 0.02 USD",
        "GPTBot (claimed) are refused",
        "more specific than `all`",
        "blog = http://127.0.0.1:8081",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let (code, text) = explain("GET", "https://shop.example/articles/archive/2024/teaser");
    assert!(
        code == 0 && text.contains("free: the route says so") && text.contains("more specific than `all`"),
        "{text}"
    );
    let (code, text) = explain("GET", "https://shop.example/.well-known/tollgate/account");
    assert!(code == 0 && text.contains("the gateway's own"), "{text}");
    let (code, text) = explain("GET", "https://shop.example/about");
    assert!(code == 0 && text.contains("free: no route matches"), "{text}");
}

#[test]
fn what_is_refused_has_its_status_and_code() {
    for (method, url, part) in [
        ("POST", "https://shop.example/articles/archive/a", "405 method_not_allowed: the route of this path takes GET"),
        ("GET", "https://other.example/articles/a", "421 misdirected_host"),
        ("GET", "https://shop.example/articles/../a", "400 ambiguous_path"),
    ] {
        let (code, text) = explain(method, url);
        assert_eq!(code, 5, "{text}");
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let (code, text) = explain("GET", "/articles/a");
    assert!(code == 2 && text.contains("expected a URL such as"), "{text}");
}

/// A request that an agent signed, as it was captured, and the agent's keys.
fn captured(agent: &Agent, change: impl FnOnce(String) -> String) -> (tempfile::TempDir, i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let id = "A".repeat(64);
    let head = agent.signed("shop.example", "GET", "/paid/a?q=1", &id).head();
    std::fs::write(dir.path().join("request.txt"), change(head)).unwrap();
    let keys = get(agent.directory.addr, tollgate::wire::directory::WELL_KNOWN).body;
    std::fs::write(dir.path().join("keys.json"), keys).unwrap();
    let (code, out, err) =
        tollgate(dir.path(), &["explain-request", "request.txt", "--key", "keys.json", "--scheme", "http"]);
    (dir, code, out + &err)
}

#[test]
fn a_signature_that_holds_is_shown_with_what_was_signed() {
    let agent = Agent::start();
    let (dir, code, text) = captured(&agent, |head| head);
    assert_eq!(code, 0, "{text}");
    for part in [
        "scheme deferred",
        "holds (ed25519)",
        "| \"@method\": GET",
        "| \"@path\": /paid/a",
        "hold at",
        &agent.url.to_string(),
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let (code, out, err) = tollgate(dir.path(), &["explain-request", "request.txt", "--scheme", "http"]);
    assert!(code == 0 && out.contains("not checked: name the agent's keys with --key"), "{out}{err}");
    let (code, out, err) = tollgate(
        dir.path(),
        &["explain-request", "request.txt", "--scheme", "http", "--key", "keys.json", "--at", "1"],
    );
    assert!(code == 1 && out.contains("times     WRONG:"), "{out}{err}");
}

#[test]
fn a_private_key_is_not_taken_and_its_public_half_can_be_printed() {
    let agent = Agent::start();
    let (dir, _, _) = captured(&agent, |head| head);
    std::fs::write(dir.path().join("agent.jwk"), tollgate::wire::jwk::signing_key_json(&agent.key)).unwrap();
    let explain =
        |key: &str| tollgate(dir.path(), &["explain-request", "request.txt", "--scheme", "http", "--key", key]);
    let (code, out, err) = explain("agent.jwk");
    assert_eq!((code, out.as_str()), (2, ""));
    let expect = "error: agent.jwk: this is a private key, which nobody else should see; print its public half with `tollgate \
                  directory --key FILE --print`\n";
    assert_eq!(err, expect);
    let (code, public, err) = tollgate(dir.path(), &["directory", "--key", "agent.jwk", "--print"]);
    assert_eq!(code, 0, "{err}");
    std::fs::write(dir.path().join("public.json"), public).unwrap();
    let (code, out, err) = explain("public.json");
    assert!(code == 0 && out.contains("holds (ed25519)"), "{out}{err}");
}

#[test]
fn what_is_wrong_is_named() {
    let agent = Agent::start();
    for (from, to, part) in [
        ("/paid/a", "/paid/b", "it does not verify over this base"),
        ("keyid=\"", "keyid=\"x", "--key has no key of this name"),
        ("Signature-Agent", "X-Agent", "`Signature-Agent` is missing"),
        ("Signature: sig1=", "Signature: sig2=", "none that can be read"),
        ("Payment: ", "PAYMENT-SIGNATURE: e30=\r\nPayment: ", "several_payments"),
    ] {
        let (_dir, code, text) = captured(&agent, |head| head.replace(from, to));
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    for (head, part) in [("", "expected a request line"), ("GET / HTTP/1.1\r\nno colon\r\n\r\n", "line 2: no `:`")] {
        let (_dir, code, text) = captured(&agent, |_| head.to_owned());
        assert_eq!(code, 2, "{text}");
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[test]
fn a_check_says_who_may_open_an_account() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tollgate.toml"), ROUTES).unwrap();
    let (code, out, err) = tollgate(dir.path(), &["check"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("5.00 USD a month each, 500.00 USD together, 20 new a day: any\n"), "{out}");
    let (_, out, _) = tollgate(dir.path(), &["check", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(found["summary"]["open_accounts"]["total"], "500.00 USD", "{out}");
}
