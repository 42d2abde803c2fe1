//! Payments of which nobody knows whether they moved money, and how they end.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::support::facilitator::{Behaviour, Facilitator};
use crate::support::gateway::tollgate;
use crate::support::wallet::{Wallet, receipt, send, token_shop, token_shop_toml};
use crate::support::*;

const LEDGER: [&str; 2] = ["--ledger", "tollgate.sqlite"];

/// A payment that the facilitator answers with silence twice.
fn unresolved(gateway: &Gateway, facilitator: &Facilitator, wallet: &Wallet) -> Value {
    facilitator.next("/settle", Behaviour::Reset);
    facilitator.next("/settle", Behaviour::Reset);
    let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
    let answer = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, answer.reason()), (503, "settlement_pending"));
    payload
}

fn listed(dir: &std::path::Path) -> Vec<Value> {
    let (code, out, err) =
        tollgate(dir, &[&["ledger", "list", "--state", "unresolved", "--json"][..], &LEDGER].concat());
    assert_eq!(code, 0, "{err}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn resolve(dir: &std::path::Path, key: &str, outcome: &str) -> (i32, String, String) {
    let what = ["ledger", "resolve", key, "--as", outcome, "--reason", "seen on the chain", "--transaction", "0xabc"];
    let force: &[&str] = if outcome == "failed" { &["--force"] } else { &[] };
    tollgate(dir, &[&what[..], force, &LEDGER].concat())
}

#[test]
fn the_operator_ends_them_through_the_running_gateway() {
    let (origin, facilitator) = (Origin::start(), Facilitator::start());
    let (first, second) = (Wallet::new(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    let socket = gateway.dir.path().join("tollgate.sqlite.admin");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let settled = unresolved(&gateway, &facilitator, &first);
    let failed = unresolved(&gateway, &facilitator, &second);
    let rows = listed(gateway.dir.path());
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows[0]["agent"].as_str().unwrap().contains(&first.address.to_string().to_lowercase()));
    assert_eq!(rows[0]["facilitator"], facilitator.url());
    assert!(rows[0]["request"].as_str().unwrap().starts_with("GET http://"));
    let key = |i: usize| rows[i]["payment"].as_str().unwrap();

    let (code, out, err) = resolve(gateway.dir.path(), key(0), "settled");
    assert_eq!((code, out.starts_with("resolved as settled")), (0, true), "{out}{err}");
    let (code, _, err) = resolve(gateway.dir.path(), key(0), "failed");
    assert_eq!((code, err.contains("not unresolved")), (1, true), "{err}");
    let (code, out, _) = resolve(gateway.dir.path(), key(1), "failed");
    assert_eq!((code, out.starts_with("resolved as failed")), (0, true));
    assert!(listed(gateway.dir.path()).is_empty());

    let answer = send(gateway.addr, "GET", "/paid/a", &settled);
    assert_eq!((answer.status, &receipt(&answer).unwrap()["transaction"]), (200, &Value::from("0xabc")));
    let answer = send(gateway.addr, "GET", "/paid/a", &failed);
    assert_eq!((answer.status, answer.reason()), (409, "payment_already_used"));
    assert_eq!(second.buy(gateway.addr, "/paid/a").status, 200);
    let (_, dir) = gateway.stop();
    assert!(!dir.path().join("tollgate.sqlite.admin").exists());
    let (code, out, err) = tollgate(dir.path(), &[&["ledger", "audit"][..], &LEDGER].concat());
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn without_a_gateway_the_ledger_is_opened_for_it() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let toml = token_shop_toml(&origin, &facilitator, "");
    let gateway = Gateway::start(&toml);
    let host = gateway.addr;
    let payload = unresolved(&gateway, &facilitator, &wallet);
    let (_, dir) = gateway.stop();
    let rows = listed(dir.path());
    let (code, out, err) = resolve(dir.path(), rows[0]["payment"].as_str().unwrap(), "settled");
    assert_eq!(code, 0, "{out}{err}");
    let gateway = Gateway::start_in(dir, &toml);
    let answer = exchange(gateway.addr, wallet::head(host, "GET", "/paid/a", &payload));
    assert_eq!((answer.status, origin.last().header("tollgate-attempt")), (200, Some("2")), "{answer:?}");
    assert_eq!(facilitator.count("/settle"), 2);
}

#[test]
fn failed_is_not_said_while_it_could_still_move_money() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    unresolved(&gateway, &facilitator, &wallet);
    let rows = listed(gateway.dir.path());
    let key = rows[0]["payment"].as_str().unwrap();
    let what = ["ledger", "resolve", key, "--as", "failed", "--reason", "no transfer"];
    let (code, _, err) = tollgate(gateway.dir.path(), &[&what[..], &LEDGER].concat());
    assert_eq!((code, err.contains("it can move money until")), (1, true), "{err}");
    assert_eq!(listed(gateway.dir.path()).len(), 1);
    assert_eq!(resolve(gateway.dir.path(), key, "failed").0, 0);
}

#[test]
fn mistakes_have_their_message() {
    let (origin, facilitator) = (Origin::start(), Facilitator::start());
    let gateway = token_shop(&origin, &facilitator, "");
    let dir = gateway.dir.path();
    let (code, _, err) = resolve(dir, "zz", "settled");
    assert_eq!((code, err.contains("34 digits of hex")), (2, true), "{err}");
    let (code, _, err) = resolve(dir, &"03".repeat(17), "settled");
    assert_eq!((code, err.contains("not unresolved")), (1, true), "{err}");
}

#[test]
fn a_facilitator_that_is_idempotent_is_asked_again_without_the_client() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let toml =
        token_shop_toml(&origin, &facilitator, "").replace("[[exact.assets]]", "idempotent = true\n[[exact.assets]]");
    let gateway = Gateway::start(&toml);
    let host = gateway.addr;
    let payload = unresolved(&gateway, &facilitator, &wallet);
    // Looked into at the start, among others.
    let (_, dir) = gateway.stop();
    let gateway = Gateway::start_in(dir, &toml);
    facilitator.arrived("/settle", 3);
    let head = wallet::head(host, "GET", "/paid/a", &payload);
    let answer = loop {
        let answer = exchange(gateway.addr, head.clone());
        // In the control thread's hand for a moment.
        if answer.status != 503 {
            break answer;
        }
    };
    assert_eq!((answer.status, origin.last().header("tollgate-attempt")), (200, Some("2")), "{answer:?}");
    assert_eq!(facilitator.count("/settle"), 3);
}

#[test]
fn a_contract_wallet_in_doubt_does_not_pay_for_the_same_thing_again() {
    for (version, over_a_restart) in [(2, false), (1, false), (2, true)] {
        let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
        let toml = token_shop_toml(&origin, &facilitator, "")
            .replace("[server]", "[server]\npublic_url = \"http://shop.example\"");
        let mut gateway = Gateway::start(&toml);
        // Longer than a key's: its contract checks it, which the facilitator asks for.
        let pay = |gateway: &Gateway| {
            let ask = "GET /paid/a HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";
            let draft = wallet.draft_of(&exchange(gateway.addr, ask));
            let mut payload = wallet.sign(&draft);
            let longer = payload["payload"]["signature"].as_str().unwrap().to_owned() + "aabb";
            payload["payload"]["signature"] = longer.into();
            if version == 1 {
                payload = serde_json::json!({"x402Version": 1, "scheme": "exact", "network": "base-sepolia",
                    "payload": payload["payload"]});
            }
            let head = crate::support::wallet::head(gateway.addr, "GET", "/paid/a", &payload);
            exchange(gateway.addr, head.replace(&format!("Host: {}", gateway.addr), "Host: shop.example"))
        };
        facilitator.next("/settle", Behaviour::Pending(200));
        facilitator.next("/settle", Behaviour::Pending(200));
        let first = pay(&gateway);
        assert_eq!((first.status, first.reason()), (503, "settlement_pending"), "{first:?}");
        if over_a_restart {
            gateway = Gateway::start_in(gateway.kill(), &toml);
        }
        let second = pay(&gateway);
        assert_eq!((second.status, second.reason()), (503, "payment_unresolved"), "version {version}: {second:?}");
        assert_eq!(facilitator.count("/settle"), 2);
    }
}
