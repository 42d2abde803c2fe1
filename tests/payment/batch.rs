//! `batch-settlement` on credit: with an id of an offer, and without («pre-authorised»).

use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::agent::{Signed, field_offer, now};
use crate::support::client::get;
use crate::support::gateway::tollgate;
use crate::support::wallet::receipt;
use crate::support::*;

const ACCEPT: &str = "accept = [\"batch-settlement\"]\n";

fn shop(origin: &Origin, agent: &Agent) -> Gateway {
    Gateway::start(&site_toml(origin, agent, ACCEPT))
}

/// The entry that is offered for a path.
fn offered(gateway: SocketAddr, path: &str) -> Value {
    let offer = get(gateway, path);
    assert_eq!(offer.status, 402, "{offer:?}");
    let accepts = field_offer(&offer)["accepts"].clone();
    accepts.as_array().unwrap().iter().find(|e| e["scheme"] == "batch-settlement").expect("no such offer").clone()
}

/// The same as a client has it that never asked: without an id.
fn known(gateway: SocketAddr) -> Value {
    let mut entry = offered(gateway, "/paid/known");
    entry["extra"] = json!({"version": "1.0.0"});
    entry
}

fn payload(accepted: &Value) -> Value {
    json!({"x402Version": 2, "payload": {"amount": accepted["amount"], "asset": accepted["asset"]}, "accepted": accepted})
}

fn signed(agent: &Agent, gateway: SocketAddr, path: &str, payload: &Value) -> Signed {
    agent.signed_in("PAYMENT-SIGNATURE", gateway, path, &STANDARD.encode(payload.to_string()))
}

fn rows(gateway: Gateway) -> Vec<Value> {
    let (status, dir) = gateway.stop();
    assert!(status.success(), "{status}");
    let (code, out, _) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{out}");
    let (code, out, err) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{err}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_offer_is_complete_and_says_how_to_sign() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = shop(&origin, &agent);
    let offer = get(gateway.addr, "/paid/page");
    let field = field_offer(&offer);
    let entry = &field["accepts"][0];
    let expect = json!({"scheme": "batch-settlement", "network": "tollgate:402", "amount": "1", "asset": "USD",
        "payTo": "merchant", "maxTimeoutSeconds": 300, "extra": {"version": "1.0.0", "id": entry["extra"]["id"],
            "idVersion": 1, "class": "public", "ttl": 300, "decimals": 2, "termsUrl": "https://example.com/terms"}});
    assert_eq!(*entry, expect);
    assert_eq!(entry["extra"]["id"].as_str().unwrap().len(), 64);
    let signing = json!({"http-message-signatures": {"info": {"registrationUrl": "https://example.com/register",
        "signatureSchemes": ["ed25519", "ecdsa-p256-sha256", "ecdsa-p384-sha384", "rsa-pss-sha512"], "tags": ["web-bot-auth"]}}});
    assert_eq!(field["extensions"], signing);
    assert!(offer.header("payment-required").unwrap().len() < 2048);
    assert_eq!(offer.json()["accepts"], json!([]));
}

#[test]
fn an_offer_is_paid_confirmed_and_booked() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = shop(&origin, &agent);
    let entry = offered(gateway.addr, "/paid/page?q=1");
    let before = now();
    let answer = exchange(gateway.addr, signed(&agent, gateway.addr, "/paid/page?q=1", &payload(&entry)).head());
    assert_eq!((answer.status, answer.text().as_str()), (200, "content of /paid/page?q=1"), "{answer:?}");
    let response = receipt(&answer).unwrap();
    let timestamp = response["timestamp"].as_i64().unwrap();
    assert!((before..=now()).contains(&timestamp));
    let host = agent.url.strip_prefix("http://").unwrap();
    let id = response["extra"]["id"].as_str().unwrap().to_owned();
    let expect = json!({"success": true, "transaction": "", "network": "tollgate:402", "payer": host, "amount": "1",
        "asset": "USD", "timestamp": timestamp, "extra": {"timestamp": timestamp, "id": id}});
    assert_eq!(response, expect);
    assert!(answer.header("vary").unwrap().contains("PAYMENT-SIGNATURE"));
    assert_eq!(answer.header("cache-control"), Some("private"));
    let seen = origin.last();
    assert!(!seen.has("payment-signature"));
    assert_eq!(seen.header("tollgate-payment-id"), entry["extra"]["id"].as_str());
    let rows = rows(gateway);
    assert_eq!((rows.len(), &rows[0]["scheme"], &rows[0]["amount"]), (1, &json!("batch-settlement"), &json!("0.01")));
    assert_eq!((&rows[0]["account"], rows[0]["n"].to_string().trim_matches('"')), (&json!("acme"), &*id));
}

#[test]
fn who_knows_the_price_pays_without_asking_first() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = shop(&origin, &agent);
    let known = known(gateway.addr);
    let mut generous = payload(&known);
    generous["payload"]["amount"] = json!("500");
    for (i, payload) in [payload(&known), generous].iter().enumerate() {
        let answer = exchange(gateway.addr, signed(&agent, gateway.addr, &format!("/paid/{i}"), payload).head());
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(receipt(&answer).unwrap()["amount"], "1", "more than the price was charged");
        assert_eq!(origin.last().header("tollgate-payment-id").unwrap().len(), 34);
    }
    let rows = rows(gateway);
    assert!(rows.len() == 2 && rows.iter().all(|row| row["amount"] == "0.01"), "{rows:?}");
}

/// Sends one bent request for an offer, or without one; nothing may reach the origin or the books.
fn refused(has_id: bool, expect: (u16, &str, &str), bend: impl FnOnce(&mut Value), change: impl FnOnce(&mut Signed)) {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = shop(&origin, &agent);
    let entry = if has_id { offered(gateway.addr, "/paid/page") } else { known(gateway.addr) };
    let mut payload = payload(&entry);
    bend(&mut payload);
    let answer = exchange(gateway.addr, signed(&agent, gateway.addr, "/paid/page", &payload).with(change).head());
    let error = answer.json()["error"].as_str().unwrap().to_owned();
    assert_eq!((answer.status, answer.reason(), &*error), expect, "{}", answer.text());
    assert!(answer.header("payment-response").is_none());
    if answer.status == 402 {
        assert_eq!(field_offer(&answer)["error"], expect.2);
        assert!(field_offer(&answer)["accepts"][0]["extra"]["id"].is_string(), "no fresh offer");
    }
    assert_eq!(origin.calls(), 0, "the origin was called");
    assert_eq!(rows(gateway), Vec::<Value>::new(), "something was written");
}

fn same<T>(_: &mut T) {}

#[test]
fn a_commitment_to_something_else() {
    let wrong = (402, "price_not_acceptable", "price_not_acceptable");
    for has_id in [true, false] {
        refused(has_id, wrong, |p| p["payload"]["amount"] = json!("0"), same);
        refused(has_id, wrong, |p| p["payload"]["asset"] = json!("USD6"), same);
        refused(has_id, wrong, |p| p["accepted"]["amount"] = json!("2"), same);
        refused(has_id, wrong, |p| p["accepted"]["payTo"] = json!("me"), same);
        refused(has_id, wrong, |p| p["accepted"]["maxTimeoutSeconds"] = json!(301), same);
        refused(has_id, wrong, |p| p["accepted"]["extra"]["version"] = json!("2.0.0"), same);
    }
    let unsupported = (402, "unsupported_scheme", "price_not_acceptable");
    refused(true, unsupported, |p| p["accepted"]["network"] = json!("cloudflare:402"), same);
    refused(false, unsupported, |p| p["accepted"]["network"] = json!("eip155:8453"), same);
    let other = (402, "other_resource", "price_not_acceptable");
    refused(false, other, |p| p["resource"] = json!({"url": "https://example.com/other"}), same);
}

#[test]
fn a_payload_that_cannot_be_read() {
    let malformed = (400, "invalid_payment", "invalid_payment_signature");
    refused(false, malformed, |p| p["payload"]["amount"] = json!(1), same);
    refused(false, malformed, |p| p["payload"]["amount"] = json!("-1"), same);
    refused(false, malformed, |p| p["payload"] = json!({}), same);
    refused(false, malformed, |p| _ = p["accepted"].as_object_mut().unwrap().remove("payTo"), same);
    refused(false, (400, "several_payments", "several_payments"), same, |r| r.extra = "X-PAYMENT: e30=\r\n".into());
}

#[test]
fn an_id_that_does_not_hold() {
    let wrong = |reason| (402, reason, "price_not_acceptable");
    refused(false, wrong("unknown_offer"), |p| p["accepted"]["extra"]["id"] = json!("abc"), same);
    refused(true, wrong("other_resource"), same, |r| r.target = "/paid/other".into());
    refused(true, wrong("other_resource"), same, |r| r.method = "DELETE".into());
}

#[test]
fn a_signature_that_covers_too_little_or_does_not_verify() {
    let invalid = (400, "invalid_signature", "invalid_signature");
    let covers = |list: &[&str]| {
        let list: Vec<String> = list.iter().map(|c| (*c).to_owned()).collect();
        move |r: &mut Signed| r.covers = list
    };
    for has_id in [true, false] {
        refused(has_id, invalid, same, covers(&["@authority", "signature-agent"]));
        refused(has_id, invalid, same, covers(&["@authority", "payment-signature"]));
        refused(has_id, invalid, same, covers(&["payment-signature", "signature-agent"]));
        refused(has_id, invalid, same, covers(&["@target-uri", "payment-signature", "signature-agent"]));
    }
    refused(false, invalid, same, |r| r.key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]));
    refused(false, invalid, same, |r| r.tag = "other".into());
    refused(false, (403, "key_unknown", "invalid_signature"), same, |r| r.keyid = "nobody".into());
}

#[test]
fn times_that_do_not_fit() {
    let late = (400, "signature_expired", "invalid_signature");
    refused(false, late, same, |r| (r.created, r.expires) = (now() - 65, now() + 60));
    refused(false, late, same, |r| r.expires = r.created + 301);
    refused(false, late, same, |r| (r.created, r.expires) = (now() + 100, now() + 200));
    refused(true, late, same, |r| (r.created, r.expires) = (now() - 200, now() - 100));
    // With an id of ours the offer decides how old is too old.
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = shop(&origin, &agent);
    let entry = offered(gateway.addr, "/paid/page");
    let old = signed(&agent, gateway.addr, "/paid/page", &payload(&entry))
        .with(|r| (r.created, r.expires) = (now() - 100, now() + 1000));
    assert_eq!(exchange(gateway.addr, old.head()).status, 200);
}

#[test]
fn who_has_no_account_or_is_blocked() {
    let unknown = (403, "signature_agent_unknown", "signature_agent_unknown");
    refused(false, unknown, |p| p["payload"]["amount"] = json!("0"), |r| r.agent = "sig1=\"https://x.example\"".into());
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml =
        site_toml(&origin, &agent, ACCEPT).replace("credit = \"1000 USD\"", "credit = \"1 USD\"\nblocked = true");
    let gateway = Gateway::start(&toml);
    let answer = exchange(gateway.addr, signed(&agent, gateway.addr, "/paid/p", &payload(&known(gateway.addr))).head());
    assert_eq!((answer.status, answer.json()["error"].as_str()), (403, Some("blocked")));
    assert_eq!((origin.calls(), agent.directory.calls()), (0, 0));
}

#[test]
fn credit_ends_exactly_at_the_limit() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, ACCEPT).replace("1000 USD", "0.02 USD"));
    let payload = payload(&known(gateway.addr));
    let buy = |i| exchange(gateway.addr, signed(&agent, gateway.addr, &format!("/paid/{i}"), &payload).head());
    assert_eq!((buy(1).status, buy(2).status), (200, 200));
    let answer = buy(3);
    assert_eq!((answer.status, answer.reason(), origin.calls()), (403, "payment_failed", 2));
    assert_eq!(answer.json()["error"], "payment_failed");
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(rows(gateway).len(), 2);
}

#[test]
fn an_account_in_another_currency_cannot_pay() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, ACCEPT).replace("1000 USD", "1000 EUR"));
    let head = signed(&agent, gateway.addr, "/paid/p", &payload(&known(gateway.addr))).head();
    let answer = exchange(gateway.addr, head);
    assert_eq!((answer.status, answer.reason(), origin.calls()), (403, "payment_failed", 0));
}

#[test]
fn a_replay_in_the_same_process_and_after_a_restart() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, ACCEPT);
    let gateway = Gateway::start(&toml);
    let entries = [offered(gateway.addr, "/paid/page"), known(gateway.addr)];
    let heads = entries.map(|entry| signed(&agent, gateway.addr, "/paid/page", &payload(&entry)).head());
    for head in &heads {
        assert_eq!(exchange(gateway.addr, head).status, 200);
    }
    let again = |gateway: &Gateway| {
        for head in &heads {
            let answer = exchange(gateway.addr, head);
            assert_eq!((answer.status, answer.reason()), (402, "already_used"));
            assert_eq!(field_offer(&answer)["error"], "invalid_payment_signature");
            assert!(answer.header("tollgate-receipt").is_some());
        }
    };
    again(&gateway);
    let addr = gateway.addr.to_string();
    let gateway = Gateway::start_in(gateway.stop().1, &toml.replace("127.0.0.1:0", &addr));
    again(&gateway);
    assert_eq!((origin.calls(), rows(gateway).len()), (2, 2));
}

#[test]
fn one_signature_for_two_requests() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = shop(&origin, &agent);
    let payload = payload(&known(gateway.addr));
    let send = |covers: &[&str], nonce: Option<&str>| {
        let first = signed(&agent, gateway.addr, "/paid/one", &payload).with(|r| {
            r.covers.extend(covers.iter().map(|c| (*c).to_owned()));
            r.nonce = nonce.map(str::to_owned);
        });
        let head = first.head();
        assert_eq!(exchange(gateway.addr, &head).status, 200);
        exchange(gateway.addr, head.replacen("/paid/one", "/paid/two", 1)).reason().to_owned()
    };
    // An honest crawler may send one signature with many requests; each is charged, and only once.
    assert_eq!(send(&[], None), "");
    assert_eq!(send(&["@path"], None), "invalid_signature");
    assert_eq!(send(&[], Some("abc")), "already_used");
    // HEAD is what GET is.
    let head = signed(&agent, gateway.addr, "/paid/three", &payload).head();
    assert_eq!(exchange(gateway.addr, &head).status, 200);
    assert_eq!(exchange(gateway.addr, head.replacen("GET", "HEAD", 1)).reason(), "already_used");
    assert_eq!((origin.calls(), rows(gateway).len()), (5, 5));
}

#[test]
fn head_costs_what_get_costs() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = shop(&origin, &agent);
    let entry = offered(gateway.addr, "/paid/page");
    let answer = exchange(
        gateway.addr,
        signed(&agent, gateway.addr, "/paid/page", &payload(&entry)).with(|r| r.method = "HEAD".into()).head(),
    );
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(receipt(&answer).unwrap()["amount"], "1");
    assert_eq!(rows(gateway).len(), 1);
}

#[test]
fn the_path_is_covered_where_the_operator_demands_it() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, ACCEPT).replace("[deferred]", "[deferred]\nrequire_path = true");
    let gateway = Gateway::start(&toml);
    let bare = signed(&agent, gateway.addr, "/paid/page", &payload(&known(gateway.addr)));
    assert_eq!(exchange(gateway.addr, bare.head()).reason(), "invalid_signature");
    let whole = bare.with(|r| r.covers.extend(["@method", "@path"].map(String::from)));
    assert_eq!(exchange(gateway.addr, whole.head()).status, 200);
}

#[test]
fn copies_sent_at_once_are_served_once() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = shop(&origin, &agent);
    let known = known(gateway.addr);
    for round in 0..4 {
        let path = format!("/paid/{round}");
        let entry = if round % 2 == 0 { offered(gateway.addr, &path) } else { known.clone() };
        let head = signed(&agent, gateway.addr, &path, &payload(&entry)).head();
        let barrier = std::sync::Barrier::new(16);
        let answers: Vec<_> = std::thread::scope(|scope| {
            let send = || {
                barrier.wait();
                exchange(gateway.addr, &head)
            };
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(send)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 1);
        assert!(answers.iter().all(|a| a.status == 200 || matches!(a.reason(), "already_used" | "payment_in_flight")));
    }
    assert_eq!((origin.calls(), rows(gateway).len()), (4, 4));
}

#[test]
fn an_origin_that_fails_is_not_charged_and_the_payment_stays_good() {
    use std::io::Write as _;
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let origin = Origin::scripted(move |_, socket| match calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
        0 => false,
        _ => socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok(),
    });
    let agent = Agent::start();
    let gateway = shop(&origin, &agent);
    let head = signed(&agent, gateway.addr, "/paid/page", &payload(&known(gateway.addr))).head();
    let answer = exchange(gateway.addr, &head);
    assert_eq!((answer.status, answer.json()["error"].as_str()), (502, Some("origin_error")));
    assert_eq!(exchange(gateway.addr, &head).status, 200);
    assert_eq!(rows(gateway).len(), 1);
}
