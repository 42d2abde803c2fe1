//! The refund list: what moved money, and whose answer nobody got.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::facilitator::{Behaviour, Facilitator};
use crate::support::gateway::tollgate;
use crate::support::wallet::{USDC, Wallet, head, receipt, send, send_until_told, token_shop, token_shop_toml};
use crate::support::*;

/// An origin of which only `/paid/good` works.
fn broken() -> Origin {
    Origin::scripted(|seen, socket| {
        let status = if seen.path() == "/paid/good" { "200 OK" } else { "500 Oops" };
        write!(socket, "HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\npage").is_ok()
    })
}

fn list(dir: &Path, args: &[&str]) -> String {
    let args = [&["ledger", "list", "--ledger", "tollgate.sqlite"], args].concat();
    let (code, out, err) = tollgate(dir, &args);
    assert_eq!(code, 0, "{out}{err}");
    out
}

fn owed(dir: &Path) -> Vec<Value> {
    list(dir, &["--state", "owed", "--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_was_paid_and_never_served_is_listed_until_it_is() {
    let (origin, facilitator, wallet) = (broken(), Facilitator::start(), Wallet::new());
    let toml = token_shop_toml(&origin, &facilitator, "settle = \"first\"\n");
    let gateway = Gateway::start(&toml);
    let host = gateway.addr;
    assert_eq!(wallet.buy(host, "/paid/good").status, 200);
    let payload = wallet.sign(&wallet.draft(host, "/paid/bad"));
    let first = send(host, "GET", "/paid/bad", &payload);
    assert_eq!(first.status, 500);
    let (_, dir) = gateway.stop();
    let rows = owed(dir.path());
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = &rows[0];
    let payer = format!("eip155:84532:{}", wallet.address.to_string().to_lowercase());
    let asset = format!("eip155:84532/erc20:{}", USDC.to_lowercase());
    for (name, value) in [
        ("payer", json!(payer)),
        ("network", json!("eip155:84532")),
        ("asset", json!(asset)),
        ("symbol", json!("USDC")),
        ("amount", json!("0.01")),
        ("units", json!(10_000)),
        ("transaction", receipt(&first).unwrap()["transaction"].clone()),
        ("route", json!("/paid/*")),
        ("request", json!(format!("GET http://{host}/paid/bad"))),
        ("fetch", json!("yes")),
    ] {
        assert_eq!(row[name], value, "{name}: {row}");
    }
    assert!(row["owed_since"].as_str().unwrap() >= row["paid_at"].as_str().unwrap(), "{row}");
    let text = list(dir.path(), &["--state", "owed"]);
    assert!(text.contains(&payer) && text.contains("0.01 USDC") && !text.contains("/paid/good"), "{text}");
    assert!(list(dir.path(), &[]).contains("owed"));
    assert!(list(dir.path(), &["--state", "owed", "--since", "2999-01-01", "--json"]).is_empty());

    // It is tried twice more and fails: still owed.
    let gateway = Gateway::start_in(dir, &toml);
    for _ in 0..2 {
        let answer = exchange(gateway.addr, head(host, "GET", "/paid/bad", &payload));
        assert_eq!((answer.status, receipt(&answer)), (500, receipt(&first)));
        assert_eq!(origin.last().header("tollgate-attempt"), Some("2"));
    }
    let (_, dir) = gateway.stop();
    assert_eq!(owed(dir.path()), rows);

    // The origin works again: served, and off the list.
    let healed = Origin::start();
    let gateway = Gateway::start_in(dir, &toml.replace(&origin.addr.to_string(), &healed.addr.to_string()));
    let answer = exchange(gateway.addr, head(host, "GET", "/paid/bad", &payload));
    assert_eq!((answer.status, healed.last().header("tollgate-attempt")), (200, Some("2")), "{answer:?}");
    let (_, dir) = gateway.stop();
    assert_eq!(owed(dir.path()), Vec::<Value>::new());
    let (code, out, err) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{out}{err}");
}

/// Whoever was told to ask for a refund must not be served by the next process: the operator may have refunded by then.
#[test]
fn what_was_told_to_be_refunded_is_never_served_again_whatever_kills_the_gateway() {
    let (origin, facilitator, wallet) = (broken(), Facilitator::start(), Wallet::new());
    let toml = token_shop_toml(&origin, &facilitator, "settle = \"first\"\n");
    let gateway = Gateway::start(&toml);
    let host = gateway.addr;
    let payload = wallet.sign(&wallet.draft(host, "/paid/bad"));
    let first = send(host, "GET", "/paid/bad", &payload);
    for _ in 0..3 {
        assert_eq!(send(host, "GET", "/paid/bad", &payload).status, 500);
    }
    let told = send_until_told(host, "/paid/bad", &payload);
    assert_eq!((told.status, told.reason(), receipt(&told)), (409, "payment_owed", receipt(&first)));
    let mut dir = gateway.kill();
    let healed = Origin::start();
    for _ in 0..2 {
        let gateway = Gateway::start_in(dir, &toml.replace(&origin.addr.to_string(), &healed.addr.to_string()));
        let answer = exchange(gateway.addr, head(host, "GET", "/paid/bad", &payload));
        assert_eq!((answer.status, answer.reason(), receipt(&answer)), (409, "payment_owed", receipt(&first)));
        dir = gateway.kill();
    }
    assert_eq!(healed.calls(), 0);
    let rows = owed(dir.path());
    assert_eq!((rows.len(), &rows[0]["fetch"]), (1, &json!("no: lapsed")), "{rows:?}");
    assert!(list(dir.path(), &["--state", "owed"]).contains("no: lapsed"));
    let (code, out, err) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{out}{err}");
}

/// The operator's word that it moved leaves the answer owed; what failed, or is in doubt, is on other lists.
#[test]
fn what_may_not_have_moved_is_not_owed() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    facilitator.next("/settle", Behaviour::Refused("insufficient_funds"));
    assert_eq!(wallet.buy(gateway.addr, "/paid/failed").status, 402);
    for path in ["/paid/doubt", "/paid/moved"] {
        facilitator.next("/settle", Behaviour::Reset);
        facilitator.next("/settle", Behaviour::Reset);
        assert_eq!(wallet.buy(gateway.addr, path).status, 503);
    }
    let (_, dir) = gateway.stop();
    assert_eq!(owed(dir.path()), Vec::<Value>::new());
    let open = list(dir.path(), &["--state", "unresolved", "--json"]);
    let open: Vec<Value> = open.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let moved = open.iter().find(|row| row["request"].as_str().unwrap().ends_with("/paid/moved")).unwrap();
    let payment = moved["payment"].as_str().unwrap();
    let word = ["--as", "settled", "--transaction", "0xabc", "--reason", "seen on the chain"];
    let args = [&["ledger", "resolve", payment, "--ledger", "tollgate.sqlite"][..], &word].concat();
    let (code, out, err) = tollgate(dir.path(), &args);
    assert_eq!(code, 0, "{out}{err}");
    let rows = owed(dir.path());
    assert_eq!((rows.len(), &rows[0]["transaction"]), (1, &json!("0xabc")), "{rows:?}");
    assert!(rows[0]["request"].as_str().unwrap().ends_with("/paid/moved"));
}

#[test]
fn what_is_owed_to_a_payer_of_version_1_is_served_to_nobody_and_stays_to_be_refunded() {
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let origin = Origin::scripted(move |_, socket| {
        let first = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        let status = if first { "500 Oops" } else { "200 OK" };
        write!(socket, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "settle = \"first\"\n");
    let payload = wallet.sign(&wallet.draft_v1(gateway.addr, "/paid/a"));
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &payload).status, 500);
    // All of it stands in the calldata of the transfer: nobody can be told from the payer.
    let again = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((again.status, again.reason()), (409, "payment_owed"), "{again:?}");
    assert_eq!(receipt(&again).unwrap()["success"], true);
    assert!(again.json()["advice"].as_str().unwrap().starts_with("Do not pay again"));
    assert_eq!(origin.calls(), 1);
    let (_, dir) = gateway.stop();
    let rows = owed(dir.path());
    assert_eq!((rows.len(), &rows[0]["fetch"]), (1, &json!("no: x402 v1")), "{rows:?}");
}

#[test]
fn a_payer_that_leaves_again_is_still_owed_and_in_the_end_told_not_to_pay_again() {
    let (held, release) = (std::sync::Arc::new(std::sync::Mutex::new(0)), std::sync::mpsc::channel::<()>());
    let (calls, gate) = (held.clone(), std::sync::Mutex::new(release.1));
    let origin = Origin::scripted(move |_, socket| {
        let call = {
            let mut calls = calls.lock().unwrap();
            *calls += 1;
            *calls
        };
        if call == 1 {
            return write!(socket, "HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno").is_ok();
        }
        // Until the client is gone.
        let _ = gate.lock().unwrap().recv();
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "settle = \"first\"\n");
    let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &payload).status, 500);
    let leave = |turn: usize| {
        let mut connection = crate::support::client::Connection::open(gateway.addr);
        connection.write(head(gateway.addr, "GET", "/paid/a", &payload));
        while origin.calls() < turn + 1 {
            std::thread::yield_now();
        }
        drop(connection);
        let _ = release.0.send(());
    };
    // Two turns are lost; the gateway notices in its own time, so the next one asks until it is not in flight.
    let settled = |expected: &[u16]| loop {
        let answer = send(gateway.addr, "GET", "/paid/a", &payload);
        if expected.contains(&answer.status) {
            return answer;
        }
        std::thread::yield_now();
    };
    leave(1);
    let _ = release.0.send(());
    let served = settled(&[200]);
    assert_eq!((served.text().as_str(), &receipt(&served).unwrap()["success"]), ("ok", &serde_json::json!(true)));
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &payload).reason(), "payment_already_used");
}

#[test]
fn an_answer_that_is_cut_again_and_again_stays_owed() {
    let origin = Origin::scripted(|_, socket| {
        let _ = write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nthe beginning");
        false
    });
    for settle in ["on_head", "first"] {
        let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
        let gateway = token_shop(&origin, &facilitator, &format!("settle = \"{settle}\"\n"));
        let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
        let first = send(gateway.addr, "GET", "/paid/a", &payload);
        assert!(first.truncated, "{first:?}");
        let mut told = Vec::new();
        while told.last() != Some(&"payment_owed".to_owned()) {
            let again = send(gateway.addr, "GET", "/paid/a", &payload);
            assert!(!again.text().contains("the beginning"), "{again:?}");
            told.push(again.reason().to_owned());
            assert!(told.len() < 1000, "{:?}", &told[..20]);
        }
        // Its three turns; before the gateway has noticed the cut, that it was served; before the end is on disk, a moment.
        told.retain(|reason| !["payment_already_used", "payment_in_flight"].contains(&&**reason));
        assert_eq!(told, ["origin_invalid", "origin_invalid", "origin_invalid", "payment_owed"], "{settle}");
        assert_eq!(facilitator.count("/settle"), 1);
        let (_, dir) = gateway.stop();
        assert_eq!(owed(dir.path()).len(), 1, "{settle}");
    }
}
