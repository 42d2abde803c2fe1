//! Agents with keys of every kind that is verified: their payments, what the books can show of them, what is refused.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::support::client::get;
use crate::support::gateway::tollgate;
use crate::support::keys::{OtherKey, malleated};
use crate::support::*;

fn kinds() -> [(&'static str, &'static str, OtherKey); 3] {
    [
        ("ecdsa-p256-sha256", "ECDSA P-256", OtherKey::p256()),
        ("ecdsa-p384-sha384", "ECDSA P-384", OtherKey::p384()),
        ("rsa-pss-sha512", "RSA-PSS", OtherKey::Rsa),
    ]
}

#[test]
fn a_payment_signed_with_any_of_them_buys_and_can_be_shown_later() {
    for (alg, title, key) in kinds() {
        let (origin, agent) = (Origin::start(), Agent::start_with(Some(key)));
        let gateway = paid_site(&origin, &agent);
        assert_eq!(agent.buy(gateway.addr, "/paid/a").status, 200, "{alg}");
        let named = agent.request(gateway.addr, "GET", "/paid/b").with(|r| r.alg = Some(alg.into()));
        assert_eq!(exchange(gateway.addr, named.head()).status, 200, "{alg}");
        for wrong in ["ed25519", "rsa-v1_5-sha256", "hmac-sha256", "ecdsa-p256-sha384"] {
            let wrong = agent.request(gateway.addr, "GET", "/paid/c").with(|r| r.alg = Some(wrong.into()));
            let answer = exchange(gateway.addr, wrong.head());
            assert_eq!((answer.status, answer.reason()), (400, "invalid_signature"), "{alg}");
        }
        let forged = agent.request(gateway.addr, "GET", "/paid/c").with(|r| r.other = Some(OtherKey::p256()));
        let answer = exchange(gateway.addr, forged.head());
        assert_eq!((answer.status, answer.reason()), (400, "invalid_signature"), "{alg}");
        let dir = gateway.stop().1;
        // Without the gateway and without the agent's directory.
        let ledger = ["--ledger", "tollgate.sqlite"];
        let (code, out, err) = tollgate(dir.path(), &["ledger", "list", "--json", ledger[0], ledger[1]]);
        assert_eq!(code, 0, "{err}");
        let rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows.len(), 2, "{alg}: {out}");
        for row in rows {
            let n = row["n"].as_str().map_or_else(|| row["n"].to_string(), str::to_owned);
            let (code, out, _) = tollgate(dir.path(), &["ledger", "verify", &n, ledger[0], ledger[1]]);
            assert_eq!(code, 0, "{alg}: {out}");
            assert!(out.contains(&format!("ok   signature    {title}")), "{out}");
        }
        let (code, out, _) = tollgate(dir.path(), &["ledger", "audit", ledger[0], ledger[1]]);
        assert_eq!(code, 0, "{out}");
    }
}

/// Anybody can turn a signature of ECDSA into another that holds: it must not be another payment.
#[test]
fn the_other_form_of_a_signature_buys_nothing_twice() {
    let (origin, agent) = (Origin::start(), Agent::start_with(Some(OtherKey::p256())));
    let gateway = Gateway::start(&site_toml(&origin, &agent, "accept = [\"crawl\"]\n"));
    let send = |fields: &[(&str, String)]| {
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("GET /paid/a HTTP/1.1\r\nHost: {}\r\n{fields}Connection: close\r\n\r\n", gateway.addr);
        exchange(gateway.addr, head)
    };
    let turned = |fields: &[(&'static str, String)]| {
        let mut fields = fields.to_vec();
        let signature = fields[3].1.trim_start_matches("sig1=:").trim_end_matches(':').to_owned();
        let signature = malleated(&STANDARD.decode(signature).unwrap());
        fields[3].1 = format!("sig1=:{}:", STANDARD.encode(signature));
        fields
    };
    let crawl = |nonce: &str| {
        let request = agent.signed_in("crawler-exact-price", gateway.addr, "/paid/a", "USD 0.01");
        request.with(|r| r.nonce = Some(nonce.into())).fields()
    };
    // The other form alone is a signature as good as the first.
    assert_eq!(send(&turned(&crawl("first"))).status, 200);
    let fields = crawl("second");
    assert_eq!(send(&fields).status, 200);
    let seen = origin.calls();
    for again in [turned(&fields), fields] {
        let answer = send(&again);
        assert_eq!(answer.reason(), "signature_used", "{answer:?}");
    }
    assert_eq!(origin.calls(), seen);
}

#[test]
fn a_pinned_key_of_another_kind_needs_no_directory() {
    for (alg, _, key) in kinds() {
        let members = serde_json::to_value(key.jwk()).unwrap();
        let members = members.as_object().unwrap().iter().map(|(name, value)| format!("{name} = {value}"));
        let pin = members.collect::<Vec<_>>().join(", ");
        let (origin, agent) = (Origin::start(), Agent::start_with(Some(key)));
        let pin = format!("[[identity.pins]]\nagent = \"{}\"\njwk = {{ {pin} }}\n", agent.url);
        let gateway = Gateway::start(&site_toml(&origin, &agent, &pin));
        assert_eq!(agent.buy(gateway.addr, "/paid/a").status, 200, "{alg}");
        assert_eq!(agent.directory.calls(), 0, "{alg}");
    }
}

#[test]
fn a_key_that_is_too_weak_is_none() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let short = r#"{ kty = "RSA", n = "AQAB", e = "AQAB" }"#;
    let pin = format!("[[identity.pins]]\nagent = \"{}\"\njwk = {short}\n", agent.url);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tollgate.toml"), site_toml(&origin, &agent, &pin)).unwrap();
    let (code, _, err) = tollgate(dir.path(), &["check", "--config", "tollgate.toml"]);
    assert!(code != 0 && err.contains("the RSA key has 17 bits; 2048 to 4096 are supported"), "{err}");
    assert_eq!(get(paid_site(&origin, &agent).addr, "/paid/a").status, 402);
}
