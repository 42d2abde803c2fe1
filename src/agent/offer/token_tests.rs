//! Offers of tokens, honest and lying.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::agent::offer::read;

const USDC: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
const SELLER: &str = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";

fn v2() -> Value {
    json!({"scheme": "exact", "network": "eip155:84532", "amount": "10000", "asset": USDC, "payTo": SELLER,
        "maxTimeoutSeconds": 300, "extra": {"name": "USDC", "version": "2", "id": "abc"}})
}

fn v1() -> Value {
    json!({"scheme": "exact", "network": "base-sepolia", "maxAmountRequired": "10000", "resource": "https://a.example/p",
        "description": "", "mimeType": "", "asset": USDC, "payTo": SELLER, "maxTimeoutSeconds": 300,
        "extra": {"name": "USDC", "version": "2"}})
}

fn ask(field: Option<&[Value]>, body: &[Value]) -> Result<Vec<Offer>, OfferError> {
    let mut headers = HeaderMap::new();
    if let Some(accepts) = field {
        let json = json!({"x402Version": 2, "resource": {"url": "https://a.example/p"}, "accepts": accepts});
        headers.insert("payment-required", STANDARD.encode(json.to_string()).parse().unwrap());
    }
    read(&headers, json!({"x402Version": 1, "accepts": body}).to_string().as_bytes(), 1000)
}

/// Reads one entry after `change`, without a body.
fn one(change: impl FnOnce(&mut Value)) -> Result<Offer, String> {
    let mut entry = v2();
    change(&mut entry);
    ask(Some(&[entry]), &[]).map(|mut offers| offers.remove(0)).map_err(|e| e.to_string())
}

fn transfer(offer: &Offer) -> &Transfer {
    match &offer.way {
        Way::Exact(transfer) => transfer,
        Way::Deferred { .. } => panic!("{offer:?}"),
    }
}

#[test]
fn a_known_token_is_an_offer_in_its_currency() {
    let offer = one(|_| {}).unwrap();
    assert_eq!((offer.price.to_string().as_str(), offer.scheme(), offer.expires), ("0.01 USD", "exact", Some(1300)));
    assert_eq!(offer.resource.as_deref(), Some("https://a.example/p"));
    let transfer = transfer(&offer);
    assert_eq!((transfer.token.symbol, transfer.amount, transfer.version), ("USDC", 10_000, Version::V2));
    assert_eq!((&transfer.entry, transfer.domain.chain_id), (&v2(), 84532));
}

#[test]
fn without_a_field_v1_is_read_and_with_one_it_is_not() {
    let offers = ask(None, &[v1()]).unwrap();
    assert_eq!((offers.len(), transfer(&offers[0]).version), (1, Version::V1));
    let offers = ask(Some(&[v2()]), &[v1()]).unwrap();
    assert_eq!((offers.len(), transfer(&offers[0]).version), (1, Version::V2));
}

#[test]
fn what_is_not_known_or_absurd_is_refused_and_named() {
    let check = |change: &dyn Fn(&mut Value), expect: &str| {
        let error = one(change).unwrap_err();
        assert!(error.contains(expect), "{error}, not {expect}");
    };
    check(&|e| e["asset"] = json!(SELLER), "is no token on eip155:84532 whose worth is known here");
    // A token of another network.
    check(&|e| e["network"] = json!("eip155:8453"), "is no token on eip155:8453");
    check(&|e| e["network"] = json!("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"), "is no chain of Ethereum");
    check(&|e| e["network"] = json!("base"), "is no chain of Ethereum");
    check(&|e| e["payTo"] = json!("merchant"), "`payTo` expected an address");
    check(&|e| e["payTo"] = Value::Null, "`payTo` is missing");
    for amount in ["0", "-1", "1.5", "", "1e4", "0x10", "340282366920938463463374607431768211456"] {
        check(&|e| e["amount"] = json!(amount), "is no whole number above zero");
    }
    check(&|e| e["amount"] = json!("9223372036854775807"), "more than any budget holds");
    for seconds in [0, 3601, u64::MAX] {
        check(&|e| e["maxTimeoutSeconds"] = json!(seconds), "`maxTimeoutSeconds` must be 1 to 3600");
    }
    check(&|e| e["maxTimeoutSeconds"] = json!(-5), "is no whole number");
    check(&|e| e["extra"]["assetTransferMethod"] = json!("permit2"), "is not `eip3009`");
    check(&|e| e["extra"]["name"] = json!("x".repeat(101)), "is too long");
}

#[test]
fn field_and_body_must_agree_on_whose_money_goes_where() {
    for (member, value, named) in [
        ("maxAmountRequired", json!("20000"), "amount"),
        ("asset", json!("0x808456652fdb597867f38412077A9182bf77359F"), "asset"),
        ("network", json!("base"), "network"),
        ("network", json!("what"), "network"),
        ("payTo", json!("0x0000000000000000000000000000000000000001"), "payTo"),
    ] {
        let mut entry = v1();
        entry[member] = value;
        let error = ask(Some(&[v2()]), &[entry.clone()]).unwrap_err().to_string();
        assert_eq!(error, format!("offer 1: `{named}` is not the same in PAYMENT-REQUIRED and in the body"));
        // Beside one that agrees, another entry of the body is another offer.
        assert!(ask(Some(&[v2()]), &[entry, v1()]).is_ok());
    }
    let mut spelt = v1();
    spelt["asset"] = json!(USDC.to_lowercase());
    assert!(ask(Some(&[v2()]), &[spelt]).is_ok());
    // A deferred offer is the same by its id.
    let deferred = |extras: &str, amount: &str| json!({"scheme": "deferred", "network": "n", "amount": amount, "asset": "USD", extras: {"id": "one"}});
    assert_eq!(ask(Some(&[deferred("extra", "1")]), &[deferred("extras", "1")]).unwrap().len(), 1);
    let error = ask(Some(&[deferred("extra", "1")]), &[deferred("extras", "2")]).unwrap_err().to_string();
    assert_eq!(error, "offer 1: `price` is not the same in PAYMENT-REQUIRED and in the body");
}

#[test]
fn members_that_two_readers_could_see_differently_are_refused() {
    let field = format!(r#"{{"accepts":[{},"#, v2()).replace("\"amount\"", "\"amount\":\"1\",\"amount\"");
    let field = field.trim_end_matches(',').to_owned() + "]}";
    let headers =
        HeaderMap::from_iter([("payment-required".parse().unwrap(), STANDARD.encode(field).parse().unwrap())]);
    assert!(read(&headers, b"", 0).unwrap_err().to_string().contains("stands twice"));
}

proptest! {
    #[test]
    fn no_offer_panics(
        texts in proptest::array::uniform4("\\PC{0,45}"), amount in "[0-9]{0,45}", seconds: u64, now: i64, member in 0..8_usize,
    ) {
        let [network, asset, pay_to, name] = texts;
        let _ = one(|e| match member {
            0 => e["network"] = json!(network),
            1 => e["asset"] = json!(asset),
            2 => e["payTo"] = json!(pay_to),
            3 => e["extra"] = json!({ "name": name }),
            4 => e["amount"] = json!(amount),
            5 => e["maxTimeoutSeconds"] = json!(seconds),
            6 => e["extra"] = json!(name),
            _ => *e = json!(name),
        });
        let field = STANDARD.encode(json!({"accepts": [v2()]}).to_string()).parse().unwrap();
        let _ = read(&HeaderMap::from_iter([("payment-required".parse().unwrap(), field)]), b"", now);
    }
}
