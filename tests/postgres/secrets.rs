//! The keys that seal offers, over gateways: rotated, retired, revoked, and not the same.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    replicas::until_open,
    support::{Agent, Gateway, Origin, Postgres, client::exchange, gateway::tollgate, site_toml},
};

fn secret() -> String {
    let dir = tempfile::tempdir().unwrap();
    tollgate(dir.path(), &["keygen", "--secret", "-o", "s.json"]);
    let file: Value = serde_json::from_str(&std::fs::read_to_string(dir.path().join("s.json")).unwrap()).unwrap();
    file[0]["secret"].as_str().unwrap().to_owned()
}

fn start(toml: &str, keys: &Value) -> Gateway {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), keys);
    Gateway::start_in(dir, toml)
}

fn write(dir: &Path, keys: &Value) {
    std::fs::write(dir.join("secret.json"), keys.to_string()).unwrap();
}

fn until_it_says(gateway: &Gateway, what: &str) {
    let until = Instant::now() + Duration::from_secs(30);
    while !gateway.log().contains(what) {
        assert!(Instant::now() < until, "{}", gateway.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn keys_are_rotated_retired_and_revoked_over_gateways() {
    let Some(server) = Postgres::start("postgres::keys_are_rotated") else { return };
    let (origin, agent) = (Origin::start(), Agent::start());
    let more = format!("[ledger]\nurl = \"{}\"\n[offers]\nsecret_file = \"secret.json\"\n", server.url());
    let toml = site_toml(&origin, &agent, &more);
    let key = |n: u8, secret: &str, from: u64, revoked: bool| json!({"n": n, "secret": secret, "sign_from": from, "revoked": revoked});
    let (first, second) = (secret(), secret());
    let old_only = json!([key(1, &first, 0, false)]);
    let both = json!([key(1, &first, 0, false), key(2, &second, 1, false)]);
    let (a, b) = (start(&toml, &old_only), start(&toml, &old_only));
    [&a, &b].iter().for_each(|gateway| until_open(gateway.addr));
    // An offer of one is paid at the other.
    let sold = |offer: &Gateway, payment: &Gateway, page: &str| {
        let signed = agent.request(offer.addr, "GET", page);
        let answer = exchange(payment.addr, signed.head());
        (answer.status, answer.reason().to_owned())
    };
    assert_eq!(sold(&a, &b, "/paid/1"), (200, String::new()));
    let out = agent.request(a.addr, "GET", "/paid/2");
    // One gateway has the new key and signs with it, the other one does not: both say so, and offers are refused.
    let (_, dir) = b.stop();
    write(dir.path(), &both);
    let b = Gateway::start_in(dir, &toml);
    until_open(b.addr);
    until_it_says(&a, "signs with key 2");
    until_it_says(&b, "signs with key 2");
    assert_eq!(sold(&b, &a, "/paid/3"), (402, "unknown_offer".to_owned()));
    // What the old key sealed is good with both.
    assert_eq!(exchange(b.addr, out.head()).status, 200);
    let out = agent.request(a.addr, "GET", "/paid/4");
    let (_, dir) = a.stop();
    write(dir.path(), &both);
    let a = Gateway::start_in(dir, &toml);
    until_open(a.addr);
    until_it_says(&b, "all gateways of this ledger have the keys");
    assert_eq!(sold(&b, &a, "/paid/5"), (200, String::new()));
    assert_eq!(exchange(a.addr, out.head()).status, 200);
    // Retired: no gateway signs with it any more. Revoked: what it sealed is void at once.
    let out = agent.request(b.addr, "GET", "/paid/6");
    let revoked = json!([key(2, &second, 1, true), key(3, &secret(), 2, false)]);
    let (_, dir) = a.stop();
    write(dir.path(), &revoked);
    let a = Gateway::start_in(dir, &toml);
    until_open(a.addr);
    let answer = exchange(a.addr, out.head());
    assert_eq!((answer.status, answer.reason()), (402, "unknown_offer"));
    until_it_says(&a, "has other keys that seal offers");
    let prints = server.sql("SELECT secret_fps FROM writers ORDER BY slot");
    assert!(!prints.contains(&first) && !prints.contains(&second), "{prints}");
    [a, b].into_iter().for_each(|gateway| assert!(gateway.stop().0.success()));
}
