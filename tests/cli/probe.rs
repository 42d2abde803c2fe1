//! `tollgate probe`: what is good and bad about a site that sells.

use std::io::Write as _;

use serde_json::Value;

use crate::support::gateway::tollgate;
use crate::support::*;

fn probe(url: &str) -> (i32, Value) {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, err) = tollgate(dir.path(), &["probe", "--json", url]);
    (code, serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}")))
}

fn verdict<'v>(probed: &'v Value, name: &str) -> (&'v str, &'v str) {
    let checks = probed["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name} in {probed}"));
    (check["verdict"].as_str().unwrap(), check["seen"].as_str().unwrap())
}

#[test]
fn nothing_is_wrong_with_a_gateway_of_ours() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let (code, probed) = probe(&format!("http://{}/paid/a", gateway.addr));
    assert_eq!(code, 0, "{probed:#}");
    for name in ["status", "offers", "resource", "cache", "cors", "size", "preflight"] {
        assert_eq!(verdict(&probed, name).0, "good", "{name} in {probed:#}");
    }
    assert!(verdict(&probed, "offers").1.contains("0.01 USD by deferred on tollgate:deferred"), "{probed:#}");
    let (code, probed) = probe(&format!("http://{}/free", gateway.addr));
    assert_eq!((code, verdict(&probed, "status").0), (1, "bad"));
}

#[test]
fn what_is_wrong_is_named() {
    let offer = r#"{"accepts":[{"scheme":"deferred","network":"n","resource":"http://127.0.0.1:1/x","amount":"1","asset":"USD",
        "extras":{"id":"abc","price":"0.01 USD"}}]}"#;
    let origin = Origin::scripted(move |_, socket| {
        let fields = "Cache-Control: public, max-age=60";
        let length = offer.len();
        write!(socket, "HTTP/1.1 402 Payment Required\r\n{fields}\r\nContent-Length: {length}\r\n\r\n{offer}").is_ok()
    });
    let (code, probed) = probe(&format!("http://{}/x", origin.addr));
    assert_eq!(code, 1, "{probed:#}");
    assert!(verdict(&probed, "cache").1.contains("a shared cache may give"), "{probed:#}");
    assert!(verdict(&probed, "resource").1.contains("set the site's public URL"), "{probed:#}");
    assert_eq!(verdict(&probed, "preflight"), ("bad", "a preflight costs money: no browser can pay for it"));
    assert_eq!((verdict(&probed, "cors").0, verdict(&probed, "listed").0), ("hint", "hint"));
}

#[test]
fn a_site_that_is_not_there_is_told_apart_from_a_wrong_url() {
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (code, _, err) = tollgate(dir.path(), &["probe", &format!("http://127.0.0.1:{port}/")]);
    assert!(code == 3 && err.contains("can't be reached"), "{err}");
    let (code, _, err) = tollgate(dir.path(), &["probe", "example.com"]);
    assert!(code == 2, "{err}");
}
