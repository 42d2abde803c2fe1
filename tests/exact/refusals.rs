//! Each refusal of a token payment: its status, its code, and x402's word for it where x402 clients read it.

use k256::ecdsa::Signature;
use serde_json::{Value, json};
use tollgate::payment::id::{Resource, SealedId};
use tollgate::wire::evm::address::Address;
use tollgate::wire::evm::u256::U256;
use tollgate::wire::evm::{from_hex, to_hex};

use crate::support::agent::{field_offer, now};
use crate::support::books::Books;
use crate::support::facilitator::Facilitator;
use crate::support::wallet::{Draft, Wallet, head, send, token_shop, token_shop_toml};
use crate::support::*;

/// The offer of `/paid/a?q=1`, bent before (`draft`) and after (`payload`) it is signed.
struct Case {
    name: &'static str,
    draft: fn(&mut Draft),
    payload: fn(&mut Value),
    status: u16,
    reason: &'static str,
    error: &'static str,
}

const KEEP: fn(&mut Value) = |_| ();
const SAME: fn(&mut Draft) = |_| ();
const SIGNATURE: &str = "invalid_exact_evm_payload_signature";
const TIMES: &str = "invalid_exact_evm_payload_authorization_valid_before";
const VALUE: &str = "invalid_exact_evm_payload_authorization_value_mismatch";
const OFFER: &str = "invalid_payment_requirements";

fn seconds(from_now: i64) -> U256 {
    U256::from((now() + from_now) as u64)
}

fn signed(name: &'static str, error: &'static str, draft: fn(&mut Draft)) -> Case {
    Case { name, draft, payload: KEEP, status: 402, reason: "payment_refused", error }
}

fn echoed(name: &'static str, reason: &'static str, error: &'static str, payload: fn(&mut Value)) -> Case {
    Case { name, draft: SAME, payload, status: 402, reason, error }
}

/// What the payer signs.
fn of_the_authorization() -> Vec<Case> {
    vec![
        signed("another receiver", "invalid_exact_evm_payload_recipient_mismatch", |d| {
            d.authorization.to = Address::new([9; 20]);
        }),
        signed("the payer as receiver", "invalid_exact_evm_payload_recipient_mismatch", |d| {
            d.authorization.to = d.authorization.from;
        }),
        signed("a unit less", VALUE, |d| d.authorization.value = U256::from(9_999_u64)),
        signed("a unit more", VALUE, |d| d.authorization.value = U256::from(10_001_u64)),
        signed("nothing", VALUE, |d| d.authorization.value = U256::from(0_u64)),
        signed("the amount and 2^128", VALUE, |d| {
            d.authorization.value = U256::parse("340282366920938463463374607431768221456").unwrap();
        }),
        signed("not yet", "invalid_exact_evm_payload_authorization_valid_after", |d| {
            d.authorization.valid_after = seconds(60);
        }),
        signed("over", TIMES, |d| d.authorization.valid_before = seconds(-1)),
        signed("never", TIMES, |d| d.authorization.valid_before = U256::from(0_u64)),
        signed("almost over", TIMES, |d| d.authorization.valid_before = seconds(4)),
        signed("too far ahead", TIMES, |d| d.authorization.valid_before = seconds(300 + 30 + 30)),
        signed("for ever", TIMES, |d| d.authorization.valid_before = U256::parse(&u128::MAX.to_string()).unwrap()),
        signed("2^64 s and a few", TIMES, |d| {
            d.authorization.valid_before = U256::parse(&((1_u128 << 64) + 1_900_000_000).to_string()).unwrap();
        }),
        signed("somebody else's money", SIGNATURE, |d| d.authorization.from = Address::new([9; 20])),
        signed("nobody's money", SIGNATURE, |d| d.authorization.from = Address::new([0; 20])),
        signed("another domain's name", SIGNATURE, |d| d.domain.name = "USD Coin".into()),
        signed("another domain's version", SIGNATURE, |d| d.domain.version = Some("1".into())),
        signed("a domain without version", SIGNATURE, |d| d.domain.version = None),
        signed("another chain", SIGNATURE, |d| d.domain.chain_id = 8453),
        signed("another contract", SIGNATURE, |d| d.domain.verifying_contract = Address::new([9; 20])),
    ]
}

/// What is changed after it was signed.
fn of_the_signature() -> Vec<Case> {
    let bent = |name, payload| echoed(name, "payment_refused", SIGNATURE, payload);
    vec![
        bent("another nonce", |p| p["payload"]["authorization"]["nonce"] = to_hex(&[7; 32]).into()),
        bent("an earlier start", |p| p["payload"]["authorization"]["validAfter"] = "1".into()),
        bent("a later end", |p| p["payload"]["authorization"]["validBefore"] = (now() + 301).to_string().into()),
        bent("no signature", |p| p["payload"]["signature"] = "0x".into()),
        bent("a signature of zeros", |p| p["payload"]["signature"] = to_hex(&[0; 65]).into()),
        bent("64 bytes", |p| {
            let text = p["payload"]["signature"].as_str().unwrap();
            p["payload"]["signature"] = text[..text.len() - 2].into();
        }),
        bent("the other recovery", |p| signature(p, |bytes| bytes[64] ^= 27 ^ 28)),
        bent("an unknown recovery", |p| signature(p, |bytes| bytes[64] = 29)),
        bent("a high s", |p| signature(p, high_s)),
    ]
}

fn signature(payload: &mut Value, change: fn(&mut [u8])) {
    let signature = &mut payload["payload"]["signature"];
    let mut bytes = from_hex(signature.as_str().unwrap()).unwrap();
    change(&mut bytes);
    *signature = to_hex(&bytes).into();
}

/// The second signature that anybody can make of one.
fn high_s(bytes: &mut [u8]) {
    let signature = Signature::from_slice(&bytes[..64]).unwrap();
    let twin = Signature::from_scalars(signature.r(), -*signature.s()).unwrap();
    bytes[..64].copy_from_slice(&twin.to_bytes());
    bytes[64] ^= 27 ^ 28;
}

/// What v2 echoes.
fn of_the_offer() -> Vec<Case> {
    let bent = |name, payload| echoed(name, "payment_refused", OFFER, payload);
    let unknown = |name, payload| echoed(name, "unknown_offer", OFFER, payload);
    let scheme = |name, payload| echoed(name, "unsupported_scheme", "unsupported_scheme", payload);
    let case = |name, status, reason, error, payload| Case { name, draft: SAME, payload, status, reason, error };
    vec![
        bent("another amount", |p| p["accepted"]["amount"] = "9999".into()),
        bent("the amount in other digits", |p| p["accepted"]["amount"] = "010000".into()),
        bent("another asset", |p| p["accepted"]["asset"] = Address::new([9; 20]).to_string().into()),
        bent("another receiver", |p| p["accepted"]["payTo"] = Address::new([9; 20]).to_string().into()),
        bent("more time", |p| p["accepted"]["maxTimeoutSeconds"] = 301.into()),
        bent("another domain", |p| p["accepted"]["extra"]["name"] = "USD Coin".into()),
        bent("a domain's version as number", |p| p["accepted"]["extra"]["version"] = 2.into()),
        bent("other decimals", |p| p["accepted"]["extra"]["decimals"] = 7.into()),
        bent("no class", |p| _ = p["accepted"]["extra"].as_object_mut().unwrap().remove("class")),
        unknown("no id", |p| _ = p["accepted"]["extra"].as_object_mut().unwrap().remove("id")),
        unknown("no extra", |p| _ = p["accepted"].as_object_mut().unwrap().remove("extra")),
        unknown("null extra", |p| p["accepted"]["extra"] = Value::Null),
        unknown("an id that is a number", |p| p["accepted"]["extra"]["id"] = 7.into()),
        unknown("another id", |p| p["accepted"]["extra"]["id"] = "A".repeat(64).into()),
        unknown("an altered id", |p| {
            let id = p["accepted"]["extra"]["id"].as_str().unwrap();
            let flipped = if id.as_bytes()[30] == b'A' { "B" } else { "A" };
            p["accepted"]["extra"]["id"] = format!("{}{flipped}{}", &id[..30], &id[31..]).into();
        }),
        unknown("a padded id", |p| {
            p["accepted"]["extra"]["id"] = format!("{}=", p["accepted"]["extra"]["id"].as_str().unwrap()).into();
        }),
        scheme("another network", |p| p["accepted"]["network"] = "eip155:8453".into()),
        scheme("v1's name of the network", |p| p["accepted"]["network"] = "base-sepolia".into()),
        scheme("a network in other case", |p| p["accepted"]["network"] = "EIP155:84532".into()),
        scheme("a scheme that is not sold", |p| p["accepted"]["scheme"] = "upto".into()),
        scheme("an unknown scheme", |p| p["accepted"]["scheme"] = "escrow".into()),
        scheme("a scheme in other case", |p| p["accepted"]["scheme"] = "Exact".into()),
        echoed("a deferred payment", "use_payment_field", "use_payment_field", |p| {
            p["accepted"]["scheme"] = "deferred".into();
        }),
        echoed("half a deferred payment", "use_payment_field", "use_payment_field", |p| {
            *p = json!({"x402Version": 2, "accepted": {"scheme": "deferred"}});
        }),
        echoed("another resource", "other_resource", OFFER, |p| p["resource"]["url"] = "http://a.example/".into()),
        case("an unknown version", 400, "invalid_payment", "invalid_x402_version", |p| p["x402Version"] = 3.into()),
        case("a url that is none", 400, "invalid_payment", "invalid_payload", |p| p["resource"]["url"] = 7.into()),
        case("no amount", 400, "invalid_payment", "invalid_payload", |p| {
            _ = p["accepted"].as_object_mut().unwrap().remove("amount");
        }),
        echoed("nothing that carries money", "payment_refused", "invalid_payload", |p| p["payload"] = json!({})),
    ]
}

/// What v1 says of the offer.
fn of_the_old_offer() -> Vec<Case> {
    let scheme = |name, payload| echoed(name, "unsupported_scheme", "unsupported_scheme", payload);
    vec![
        scheme("another network", |p| p["network"] = "base".into()),
        scheme("v2's name of the network", |p| p["network"] = "eip155:84532".into()),
        scheme("an unknown network", |p| p["network"] = "mars".into()),
        scheme("an unknown scheme", |p| p["scheme"] = "escrow".into()),
        scheme("a scheme that is not sold", |p| p["scheme"] = "upto".into()),
        echoed("a deferred payment", "use_payment_field", "use_payment_field", |p| p["scheme"] = "deferred".into()),
        echoed("nothing that carries money", "payment_refused", "invalid_payload", |p| p["payload"] = json!({})),
    ]
}

const PATH: &str = "/paid/a?q=1";

#[test]
fn each_refusal_of_v2_has_its_code_and_x402s_word() {
    each(2, [of_the_authorization(), of_the_signature(), of_the_offer()].into_iter().flatten());
}

#[test]
fn each_refusal_of_v1_has_its_code_and_x402s_word() {
    each(1, [of_the_authorization(), of_the_signature(), of_the_old_offer()].into_iter().flatten());
}

fn each(version: u8, cases: impl Iterator<Item = Case>) {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    let draft = || match version {
        1 => wallet.draft_v1(gateway.addr, PATH),
        _ => wallet.draft(gateway.addr, PATH),
    };
    for case in cases {
        let mut draft = draft();
        (case.draft)(&mut draft);
        let mut payload = wallet.sign(&draft);
        (case.payload)(&mut payload);
        // The field is the one of the version, whatever the payload says of itself.
        let field = if version == 1 { "X-PAYMENT" } else { "PAYMENT-SIGNATURE" };
        let head = head(gateway.addr, "GET", PATH, &payload).replace("PAYMENT-SIGNATURE", field);
        let answer = exchange(gateway.addr, head.replace("X-PAYMENT", field));
        refused(&answer, case.status, case.reason, case.error, case.name);
    }
    // The good one pays after them.
    assert_eq!(send(gateway.addr, "GET", PATH, &wallet.sign(&draft())).status, 200);
    assert_eq!((origin.calls(), facilitator.count("/verify"), facilitator.count("/settle")), (1, 1, 1));
    let (_, dir) = gateway.stop();
    let books = Books::read(dir.path());
    assert_eq!((books.captures.len(), books.intents, books.failed), (1, 1, 0));
}

/// What both versions of a client read: the field, and the body.
fn refused(answer: &Answer, status: u16, reason: &str, error: &str, name: &str) {
    let all = format!("{name}: {}", answer.text());
    assert_eq!((answer.status, answer.reason()), (status, reason), "{all}");
    let body = answer.json();
    assert_eq!((&body["x402Version"], &body["error"]), (&json!(1), &json!(error)), "{all}");
    assert_eq!(body["accepts"][0]["maxAmountRequired"], "10000", "{all}");
    assert!(answer.header("payment-response").is_none() && answer.header("x-payment-response").is_none(), "{all}");
    // Clients of v2 read nothing but the field, also to learn what was wrong.
    let field = field_offer(answer);
    assert_eq!((&field["x402Version"], &field["error"]), (&json!(2), &json!(error)), "{all}");
    assert_eq!(field["accepts"][0]["extra"]["id"].as_str().map(str::len), Some(64), "no fresh offer: {all}");
}

/// An offer for one thing pays for nothing else; with and without the hint `resource`.
#[test]
fn an_offer_for_another_method_host_path_or_query() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, "");
    let payload = wallet.sign(&wallet.draft(gateway.addr, PATH));
    let mut bare = payload.clone();
    bare.as_object_mut().unwrap().remove("resource");
    let here = gateway.addr.to_string();
    for (method, host, path, hinted) in [
        ("DELETE", &*here, PATH, "other_resource"),
        ("POST", &here, PATH, "other_resource"),
        ("GET", "other.example", PATH, OFFER),
        ("GET", &here, "/paid/b?q=1", OFFER),
        ("GET", &here, "/paid/A?q=1", OFFER),
        ("GET", &here, "/paid/a", OFFER),
        ("GET", &here, "/paid/a?q=2", OFFER),
        ("GET", &here, "/paid/a?q=1&r", OFFER),
        ("GET", &here, "/paid/a/?q=1", OFFER),
    ] {
        for (payload, error) in [(&payload, hinted), (&bare, "other_resource")] {
            let head =
                head(gateway.addr, method, path, payload).replace(&format!("Host: {here}"), &format!("Host: {host}"));
            let name = format!("{method} {host}{path}");
            refused(&exchange(gateway.addr, head), 402, "other_resource", error, &name);
        }
    }
    assert_eq!((origin.calls(), facilitator.count("/verify")), (0, 0));
    // HEAD is the GET that was priced.
    let head = head(gateway.addr, "HEAD", PATH, &payload);
    assert_eq!(exchange(gateway.addr, head).status, 200);
    assert_eq!(send(gateway.addr, "GET", PATH, &bare).status, 409);
}

#[test]
fn an_expired_offer() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    // The least that an origin with these deadlines allows.
    let toml = token_shop_toml(&origin, &facilitator, "").replace("[origin]", "[offers]\nttl_seconds = 90\n[origin]");
    let gateway = Gateway::start(&toml);
    let aged = |age_s| {
        let mut draft = wallet.draft(gateway.addr, "/paid/a");
        draft.entry["extra"]["id"] = sealed(&gateway, age_s).into();
        send(gateway.addr, "GET", "/paid/a", &wallet.sign(&draft))
    };
    refused(&aged(92), 402, "offer_expired", "offer_expired", "just over");
    refused(&aged(1_000_000), 402, "offer_expired", "offer_expired", "long ago");
    assert_eq!((origin.calls(), facilitator.count("/verify")), (0, 0));
    assert_eq!(aged(80).status, 200);
}

/// An id of this age for `/paid/a`, sealed with the gateway's own secret.
fn sealed(gateway: &Gateway, age_s: i64) -> String {
    let secrets = std::fs::read_to_string(gateway.dir.path().join("tollgate-secret.json")).unwrap();
    let secrets = tollgate::payment::secrets::Secrets::parse(&secrets).unwrap();
    let config = tollgate::config::load(&gateway.dir.path().join("tollgate.toml"), std::iter::empty()).unwrap();
    let offers = tollgate::proxy::core::Shared::offers_of(&config);
    let entry = &offers[0].as_ref().unwrap().entries[0];
    let authority = gateway.addr.to_string();
    let resource = Resource { method: "GET", authority: &authority, path: "/paid/a", query: "", tool: "" };
    let made_ms = ((now() - age_s) * 1000) as u64;
    SealedId::seal(&secrets, made_ms, [1; 7], &entry.term, entry.amount, &resource).unwrap().to_text()
}
