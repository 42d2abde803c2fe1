//! `upto`: the client signs a maximum, the origin says how much of it is taken.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tollgate::wire::evm::address::Address;
use tollgate::wire::evm::permit2::EXACT_PROXY;
use tollgate::wire::evm::u256::U256;

use crate::support::agent::field_offer;
use crate::support::client::get;
use crate::support::facilitator::{Behaviour, Facilitator};
use crate::support::gateway::tollgate;
use crate::support::permit::{Permit, SETTLER, upto_shop, upto_shop_toml};
use crate::support::wallet::{self, PAY_TO, USDC, Wallet, receipt, send, token_shop};
use crate::support::*;

/// An origin that says these lines in its head.
fn says(lines: &'static str) -> Origin {
    Origin::scripted(move |_, socket| write!(socket, "HTTP/1.1 200 OK\r\n{lines}Content-Length: 4\r\n\r\npage").is_ok())
}

/// Rows of `ledger list`, the newest first; the books are audited before.
fn rows(gateway: Gateway) -> Vec<Value> {
    let (_, dir) = gateway.stop();
    let (code, out, err) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{err}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_offer_says_all_that_the_official_clients_sign() {
    let (origin, facilitator) = (Origin::start(), Facilitator::start());
    let gateway = upto_shop(&origin, &facilitator, "");
    let offer = get(gateway.addr, "/paid/a");
    let entry = field_offer(&offer)["accepts"][0].clone();
    let expected = [
        ("scheme", json!("upto")),
        ("network", json!("eip155:84532")),
        ("amount", json!("10000")),
        ("asset", json!(USDC)),
        ("payTo", json!(PAY_TO)),
        ("maxTimeoutSeconds", json!(300)),
    ];
    expected.iter().for_each(|(name, value)| assert_eq!(&entry[*name], value, "{entry}"));
    let extra = &entry["extra"];
    assert_eq!((&extra["assetTransferMethod"], &extra["facilitatorAddress"]), (&json!("permit2"), &json!(SETTLER)));
    assert_eq!((&extra["name"], &extra["version"]), (&json!("USDC"), &json!("2")));
    // Version 1 has no such scheme.
    assert_eq!(offer.json()["accepts"], json!([]));
}

#[test]
fn a_payer_is_charged_what_the_origin_takes() {
    let cases = [
        ("Settlement-Overrides: {\"amount\":\"4000\"}\r\n", 4000),
        ("PAYMENT-SETTLEMENT: {\"amount\": \"1\"}\r\n", 1),
        ("settlement-overrides: {\"amount\":\"33.33%\"}\r\n", 3333),
        ("Settlement-Overrides: {\"amount\":\"$0.0025\"}\r\nPAYMENT-SETTLEMENT: {\"amount\":\"$0.0025\"}\r\n", 2500),
        ("Settlement-Overrides: {\"amount\":\"10000\"}\r\n", 10_000),
        ("", 10_000),
    ];
    for settle in ["on_head", "after_body"] {
        for (lines, amount) in cases {
            let (origin, facilitator, wallet) = (says(lines), Facilitator::start(), Wallet::new());
            let gateway = upto_shop(&origin, &facilitator, &format!("settle = \"{settle}\"\n"));
            let answer = wallet.buy_upto(gateway.addr, "/paid/a");
            assert_eq!((answer.status, answer.text().as_str()), (200, "page"), "{lines}{answer:?}\n{}", gateway.log());
            let paid = receipt(&answer).unwrap();
            assert_eq!((&paid["success"], &paid["amount"]), (&json!(true), &json!(amount.to_string())), "{lines}");
            let told = ["settlement-overrides", "payment-settlement"].map(|name| answer.header(name));
            assert_eq!(told, [None, None], "what the origin takes is for the gateway alone");
            let asked = |path: &str| facilitator.calls_of(path)[0].body["paymentRequirements"]["amount"].clone();
            assert_eq!((asked("/verify"), asked("/settle")), (json!("10000"), json!(amount.to_string())), "{lines}");
            assert_eq!((facilitator.count("/verify"), facilitator.count("/settle")), (1, 1));
            let sql = rusqlite::Connection::open(gateway.ledger()).unwrap();
            let listed = "SELECT list_amount FROM entries WHERE kind = 1";
            assert_eq!(sql.query_row(listed, (), |row| row.get::<_, i64>(0)), Ok(10_000), "the maximum");
            drop(sql);
            let rows = rows(gateway);
            let kinds: Vec<_> = rows.iter().map(|row| row["kind"].as_str().unwrap()).collect();
            assert_eq!(kinds, ["capture", "intent"]);
            for row in &rows {
                assert_eq!((&row["scheme"], &row["units"]), (&json!("upto"), &json!(amount)), "{row}");
            }
        }
    }
}

/// Served and spent, for an answer is given; nothing moves, so nobody is asked to settle.
#[test]
fn an_origin_that_takes_nothing_moves_nothing() {
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let origin = says("Settlement-Overrides: {\"amount\":\"0\"}\r\n");
    let gateway = upto_shop(&origin, &facilitator, "");
    let payload = wallet.sign_permit(&wallet.permit(gateway.addr, "/paid/a"));
    let answer = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, answer.text().as_str()), (200, "page"), "{answer:?}");
    let paid = receipt(&answer).unwrap();
    assert_eq!((&paid["success"], &paid["transaction"], &paid["amount"]), (&json!(true), &json!(""), &json!("0")));
    assert!(paid["payer"].as_str().unwrap().eq_ignore_ascii_case(&wallet.address.to_string()));
    let again = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((again.status, again.reason(), receipt(&again)), (409, "payment_already_used", Some(paid)));
    assert_eq!((facilitator.count("/settle"), origin.calls()), (0, 1));
    let rows = rows(gateway);
    assert_eq!((rows.len(), &rows[0]["kind"], &rows[0]["units"]), (1, &json!("capture"), &json!(0)), "{rows:?}");
}

#[test]
fn an_origin_that_takes_more_than_was_signed_gets_what_was_signed() {
    for lines in
        ["Settlement-Overrides: {\"amount\":\"10001\"}\r\n", "PAYMENT-SETTLEMENT: {\"amount\":\"100.01%\"}\r\n"]
    {
        let origin = Origin::scripted(move |_, socket| {
            write!(socket, "HTTP/1.1 200 OK\r\n{lines}Content-Length: 4\r\n\r\npage").is_ok()
        });
        let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
        let gateway = upto_shop(&origin, &facilitator, "");
        let payload = wallet.sign_permit(&wallet.permit(gateway.addr, "/paid/a"));
        let answer = send(gateway.addr, "GET", "/paid/a", &payload);
        assert_eq!((answer.status, &receipt(&answer).unwrap()["amount"]), (200, &json!("10000")), "{answer:?}");
        assert_eq!(facilitator.calls_of("/settle")[0].body["paymentRequirements"]["amount"], "10000");
        assert!(gateway.log().contains("takes more than was signed"), "{}", gateway.log());
        assert_eq!(rows(gateway)[0]["units"], 10_000);
    }
}

#[test]
fn an_amount_that_cannot_be_settled_withholds_the_answer_uncharged() {
    for lines in [
        "Settlement-Overrides: {\"amount\":\"-1\"}\r\n",
        "Settlement-Overrides: {\"amount\":4000}\r\n",
        "Settlement-Overrides: 4000\r\n",
        "Settlement-Overrides: {\"amount\":\"1\"}\r\nPAYMENT-SETTLEMENT: {\"amount\":\"2\"}\r\n",
        "Settlement-Overrides: {\"amount\":\"1\"}\r\nSettlement-Overrides: {\"amount\":\"1\"}\r\n",
    ] {
        let calls = AtomicUsize::new(0);
        let origin = Origin::scripted(move |_, socket| {
            let lines = if calls.fetch_add(1, Ordering::Relaxed) == 0 { lines } else { "" };
            write!(socket, "HTTP/1.1 200 OK\r\n{lines}Content-Length: 4\r\n\r\npage").is_ok()
        });
        let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
        let gateway = upto_shop(&origin, &facilitator, "");
        let payload = wallet.sign_permit(&wallet.permit(gateway.addr, "/paid/a"));
        let answer = send(gateway.addr, "GET", "/paid/a", &payload);
        assert_eq!((answer.status, answer.reason()), (502, "origin_amount_invalid"), "{lines}{answer:?}");
        assert!(!answer.text().contains("page") && receipt(&answer).is_none());
        assert_eq!(facilitator.count("/settle"), 0);
        assert!(gateway.log().contains("ERROR"), "{}", gateway.log());
        // The payment is good again.
        assert_eq!(send(gateway.addr, "GET", "/paid/a", &payload).status, 200, "{lines}");
        assert_eq!(rows(gateway).len(), 2, "an intent and its capture");
    }
}

#[test]
fn an_answer_that_is_not_charged_takes_nothing_whatever_it_says() {
    let origin = Origin::scripted(|_, socket| {
        let head =
            "HTTP/1.1 404 Not Found\r\nSettlement-Overrides: {\"amount\":\"4000\"}\r\nContent-Length: 2\r\n\r\nno";
        socket.write_all(head.as_bytes()).is_ok()
    });
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let gateway = upto_shop(&origin, &facilitator, "");
    let answer = wallet.buy_upto(gateway.addr, "/paid/a");
    assert_eq!((answer.status, receipt(&answer)), (404, None), "{answer:?}");
    assert!(answer.header("settlement-overrides").is_none());
    assert_eq!(facilitator.count("/settle"), 0);
    assert_eq!(rows(gateway).len(), 0);
}

/// Whoever pays a price pays it, whatever the origin says.
#[test]
fn an_origin_cannot_lower_what_is_exact() {
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let origin = says("Settlement-Overrides: {\"amount\":\"1\"}\r\n");
    let gateway = token_shop(&origin, &facilitator, "");
    let answer = wallet.buy(gateway.addr, "/paid/a");
    assert_eq!(receipt(&answer).unwrap()["amount"], "10000", "{answer:?}");
    assert!(answer.header("settlement-overrides").is_none());
}

/// More than was asked for, or the maximum: either is not what was asked.
#[test]
fn a_settlement_of_another_amount_is_no_success() {
    for amount in ["10000", "4001", "3999"] {
        let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
        let origin = says("Settlement-Overrides: {\"amount\":\"4000\"}\r\n");
        let gateway = upto_shop(&origin, &facilitator, "");
        facilitator.next("/settle", Behaviour::Lie { network: "eip155:84532", amount });
        let answer = wallet.buy_upto(gateway.addr, "/paid/a");
        assert_eq!((answer.status, answer.reason()), (503, "settlement_pending"), "{answer:?}");
        assert!(!answer.text().contains("page"));
    }
}

/// The amount is that of the first time, whatever the origin would take now: it is written with the intent.
#[test]
fn a_restart_in_doubt_settles_the_amount_that_was_intended() {
    let calls = AtomicUsize::new(0);
    let origin = Origin::scripted(move |_, socket| {
        let amount = if calls.fetch_add(1, Ordering::Relaxed) == 0 { "4000" } else { "9000" };
        write!(
            socket,
            "HTTP/1.1 200 OK\r\nSettlement-Overrides: {{\"amount\":\"{amount}\"}}\r\nContent-Length: 4\r\n\r\npage"
        )
        .is_ok()
    });
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let toml = upto_shop_toml(&origin, &facilitator, "");
    let gateway = Gateway::start(&toml);
    let host = gateway.addr;
    facilitator.next("/settle", Behaviour::Reset);
    facilitator.next("/settle", Behaviour::Pending(500));
    let payload = wallet.sign_permit(&wallet.permit(host, "/paid/a"));
    let answer = send(host, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, answer.reason()), (503, "settlement_pending"), "{answer:?}");
    let gateway = Gateway::start_in(gateway.kill(), &toml);
    let again = || exchange(gateway.addr, wallet::head(host, "GET", "/paid/a", &payload));
    let answer = again();
    assert_eq!((answer.status, origin.last().header("tollgate-attempt")), (200, Some("2")), "{answer:?}");
    assert_eq!(receipt(&answer).unwrap()["amount"], "4000");
    assert_eq!(again().status, 409);
    let asked: Vec<Value> = facilitator.calls_of("/settle").into_iter().map(|call| call.body).collect();
    assert!(asked.len() == 3 && asked.iter().all(|body| *body == asked[0]), "the same each time: {asked:?}");
    let rows = rows(gateway);
    let sums: Vec<_> = rows.iter().map(|row| (row["kind"].as_str().unwrap(), row["units"].as_i64())).collect();
    assert!(sums.iter().all(|(_, units)| *units == Some(4000)), "{sums:?}");
    assert!(sums.iter().any(|(kind, _)| *kind == "capture"), "{sums:?}");
}

#[test]
fn an_answer_too_long_to_be_held_is_refused_uncharged() {
    let calls = AtomicUsize::new(0);
    let origin = Origin::scripted(move |_, socket| {
        let body = if calls.fetch_add(1, Ordering::Relaxed) == 0 { "123456789" } else { "12345678" };
        write!(socket, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}\r\n{body}\r\n0\r\n\r\n", body.len())
            .is_ok()
    });
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let toml = upto_shop_toml(&origin, &facilitator, "settle = \"after_body\"\n")
        .replace("[[exact.assets]]", "[exact]\nbody_bytes = 8\n[[exact.assets]]");
    let gateway = Gateway::start(&toml);
    let payload = wallet.sign_permit(&wallet.permit(gateway.addr, "/paid/a"));
    let answer = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, answer.reason()), (502, "answer_too_long"), "{answer:?}");
    assert_eq!(facilitator.count("/settle"), 0);
    let answer = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, answer.text().as_str()), (200, "12345678"), "{answer:?}");
}

#[test]
fn what_was_not_signed_as_asked_reaches_nobody() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = upto_shop(&origin, &facilitator, "");
    let other = Address::parse(&format!("0x{}", "07".repeat(20))).unwrap();
    type Change = fn(&mut Permit, Address);
    let cases: [(Change, &str); 9] = [
        (|p, _| p.authorization.spender = EXACT_PROXY, "invalid_permit2_spender"),
        (|p, other| p.authorization.token = other, "permit2_token_mismatch"),
        (|p, _| p.authorization.amount = U256::from(9_999_u64), "permit2_amount_mismatch"),
        (|p, _| p.authorization.amount = U256::from(10_001_u64), "permit2_amount_mismatch"),
        (|p, other| p.authorization.witness.to = other, "invalid_permit2_recipient_mismatch"),
        (|p, other| p.authorization.witness.facilitator = Some(other), "upto_unauthorized_facilitator"),
        (|p, _| p.authorization.witness.facilitator = None, "upto_unauthorized_facilitator"),
        (|p, _| p.authorization.deadline = U256::from(1_u64), "permit2_deadline_expired"),
        (|p, _| p.authorization.witness.valid_after = U256::from(u64::MAX), "permit2_not_yet_valid"),
    ];
    for (change, code) in cases {
        let mut permit = wallet.permit(gateway.addr, "/paid/a");
        change(&mut permit, other);
        let answer = send(gateway.addr, "GET", "/paid/a", &wallet.sign_permit(&permit));
        assert_eq!((answer.status, &field_offer(&answer)["error"]), (402, &json!(code)), "{answer:?}");
    }
    // Changed after it was signed.
    let mut payload = wallet.sign_permit(&wallet.permit(gateway.addr, "/paid/a"));
    payload["payload"]["permit2Authorization"]["nonce"] = json!("7");
    let answer = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, &field_offer(&answer)["error"]), (402, &json!("invalid_permit2_signature")));
    // Another offer than was made: less, by EIP-3009, for nobody.
    let mut permit = wallet.permit(gateway.addr, "/paid/a");
    permit.entry["amount"] = json!("1");
    permit.authorization.amount = U256::from(1_u64);
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &wallet.sign_permit(&permit)).status, 402);
    let mut permit = wallet.permit(gateway.addr, "/paid/a");
    permit.entry["scheme"] = json!("exact");
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &wallet.sign_permit(&permit)).status, 402);
    let mut permit = wallet.permit(gateway.addr, "/paid/a");
    permit.entry["extra"]["facilitatorAddress"] = json!(other.to_string());
    permit.authorization.witness.facilitator = Some(other);
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &wallet.sign_permit(&permit)).status, 402);
    assert_eq!((facilitator.count("/verify"), facilitator.count("/settle"), origin.calls()), (0, 0, 0));
}

/// Only the one whose account was signed can settle.
#[test]
fn the_facilitator_that_was_signed_is_asked() {
    let (origin, wallet) = (Origin::start(), Wallet::new());
    let (other, ours) = (Facilitator::start(), Facilitator::start());
    other.rule(|call| match call.path.as_str() {
        "/supported" => Behaviour::Json(
            200,
            json!({"kinds": [{"x402Version": 2, "scheme": "upto", "network": "eip155:84532",
                "extra": {"facilitatorAddress": PAY_TO}}]}),
        ),
        _ => Behaviour::Good,
    });
    let toml = upto_shop_toml(&origin, &other, "")
        .replace("[[exact.assets]]", &format!("[facilitators.second]\nurl = \"{}\"\n[[exact.assets]]", ours.url()));
    let gateway = Gateway::start(&toml);
    [&other, &ours].into_iter().for_each(|facilitator| facilitator.arrived("/supported", 1));
    // What it read of their answers shows in what it does; until then the first that takes the kind is asked.
    while ours.count("/settle") == 0 {
        assert_eq!(wallet.buy_upto(gateway.addr, "/paid/a").status, 200);
    }
    let before = other.count("/settle");
    assert_eq!(wallet.buy_upto(gateway.addr, "/paid/a").status, 200);
    assert_eq!((other.count("/settle"), ours.count("/settle")), (before, 2));
}

#[test]
fn the_sandbox_settles_what_is_taken_on_paper() {
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let origin = says("Settlement-Overrides: {\"amount\":\"4000\"}\r\n");
    let toml = upto_shop_toml(&origin, &facilitator, "")
        .replace("[[exact.assets]]", "[exact]\nsandbox = true\n[[exact.assets]]");
    let gateway = Gateway::start(&toml);
    let permit = wallet.permit(gateway.addr, "/paid/a");
    let answer = send(gateway.addr, "GET", "/paid/a", &wallet.sign_permit(&permit));
    assert_eq!(answer.status, 200, "{answer:?}\n{}", gateway.log());
    let paid = receipt(&answer).unwrap();
    assert_eq!((&paid["amount"], paid["transaction"].as_str().map(str::len)), (&json!("4000"), Some(66)));
    // The nonce is spent for the sandbox too, by whatever offer it comes back.
    let mut again = wallet.permit(gateway.addr, "/paid/b");
    again.authorization.nonce = permit.authorization.nonce;
    assert_eq!(send(gateway.addr, "GET", "/paid/b", &wallet.sign_permit(&again)).status, 409);
    assert!(facilitator.calls().iter().all(|call| call.path == "/supported"));
}

/// The operator's word is about what was asked for, not about the maximum.
#[test]
fn what_the_operator_resolves_is_the_amount_that_was_intended() {
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let origin = says("Settlement-Overrides: {\"amount\":\"4000\"}\r\n");
    let toml = upto_shop_toml(&origin, &facilitator, "");
    let gateway = Gateway::start(&toml);
    let host = gateway.addr;
    facilitator.next("/settle", Behaviour::Reset);
    facilitator.next("/settle", Behaviour::Reset);
    let payload = wallet.sign_permit(&wallet.permit(host, "/paid/a"));
    assert_eq!(send(host, "GET", "/paid/a", &payload).reason(), "settlement_pending");
    let (_, dir) = gateway.stop();
    let books = ["--ledger", "tollgate.sqlite"];
    let (code, open, err) =
        tollgate(dir.path(), &[&["ledger", "list", "--state", "unresolved", "--json"][..], &books].concat());
    assert_eq!(code, 0, "{err}");
    let payment: Value = serde_json::from_str(open.lines().next().unwrap()).unwrap();
    let word = ["--as", "settled", "--transaction", "0xabc", "--reason", "seen on the chain"];
    let resolve = ["ledger", "resolve", payment["payment"].as_str().unwrap()];
    let (code, out, err) = tollgate(dir.path(), &[&resolve[..], &word, &books].concat());
    assert_eq!(code, 0, "{out}{err}");
    let gateway = Gateway::start_in(dir, &toml);
    let answer = exchange(gateway.addr, wallet::head(host, "GET", "/paid/a", &payload));
    assert_eq!((answer.status, origin.last().header("tollgate-attempt")), (200, Some("2")), "{answer:?}");
    let paid = receipt(&answer).unwrap();
    assert_eq!((&paid["amount"], &paid["transaction"]), (&json!("4000"), &json!("0xabc")));
    assert!(paid["payer"].as_str().unwrap().eq_ignore_ascii_case(&wallet.address.to_string()), "{paid}");
    let rows = rows(gateway);
    let capture = rows.iter().find(|row| row["kind"] == "capture").unwrap();
    assert_eq!(capture["units"], 4000, "{capture}");
}

#[test]
fn a_settlement_that_does_not_say_how_much_is_in_doubt() {
    let origin = says("Settlement-Overrides: {\"amount\":\"4000\"}\r\n");
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let gateway = upto_shop(&origin, &facilitator, "");
    // One that looks at what was signed takes the maximum.
    let vague = json!({"success": true, "transaction": "0xabc", "network": "eip155:84532"});
    facilitator.next("/settle", Behaviour::Json(200, vague.clone()));
    facilitator.next("/settle", Behaviour::Json(200, vague));
    let answer = wallet.buy_upto(gateway.addr, "/paid/a");
    assert_eq!((answer.status, answer.reason()), (503, "settlement_pending"), "{answer:?}");
    assert!(rows(gateway).iter().all(|row| row["kind"] == "intent"));
}
