//! 402s, honest and otherwise.

use base64::Engine as _;
use base64::engine::general_purpose;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn entry() -> Value {
    json!({"scheme": "deferred", "network": "tollgate:deferred", "resource": "https://a.example/p", "amount": "1",
        "asset": "USD", "payTo": "merchant", "maxTimeoutSeconds": 300, "description": "An article",
        "extras": {"id": "abc", "price": "0.01 USD", "ttl": 200, "decimals": 2, "termsUrl": "https://a.example/t"}})
}

fn body(accepts: &[Value]) -> Vec<u8> {
    json!({"accepts": accepts, "error": "payment_required"}).to_string().into_bytes()
}

fn read_body(body: &[u8]) -> Result<Vec<Offer>, OfferError> {
    read(&HeaderMap::new(), body, 1000)
}

/// Reads one entry after `change`.
fn one(change: impl FnOnce(&mut Value)) -> Result<Offer, String> {
    let mut entry = entry();
    change(&mut entry);
    read_body(&body(&[entry])).map(|mut offers| offers.remove(0)).map_err(|e| e.to_string())
}

#[test]
fn a_complete_offer_is_read() {
    let offer = one(|_| {}).unwrap();
    assert_eq!(offer.price, Money::parse("0.01 USD").unwrap());
    assert_eq!((offer.id(), offer.network.as_str()), (Some("abc"), "tollgate:deferred"));
    assert_eq!(offer.expires, Some(1200));
    assert_eq!(offer.terms_url(), Some("https://a.example/t"));
    assert_eq!(
        offer.payment().unwrap().to_field().unwrap(),
        r#"scheme="deferred", network="tollgate:deferred", id="abc""#
    );
}

#[test]
fn the_proposals_own_offer_needs_a_price_and_no_more() {
    let least = |price: Value| {
        read_body(&body(&[json!({"scheme": "deferred", "network": "example-network-provider",
            "resource": "https://a.example/p", "extras": {"id": "abc123", "price": price}})]))
    };
    assert_eq!(least(json!("0.001 USD")).unwrap()[0].price.to_string(), "0.001 USD");
    assert_eq!(least(Value::Null).unwrap_err().to_string(), "offer 1: `amount` is missing, and no `price` is given");
}

#[test]
fn what_is_malformed_is_named() {
    let check = |change: &dyn Fn(&mut Value), expect: &str| {
        let error = one(change).unwrap_err();
        assert!(error.contains(expect), "{error}, not {expect}");
    };
    check(&|e| _ = e.as_object_mut().unwrap().remove("extras"), "`id` is missing");
    check(&|e| e["extras"]["id"] = json!(7), "`id` is not a string");
    check(&|e| e["extras"]["id"] = json!("a b"), "`extras.id` must be");
    check(&|e| e["extras"]["id"] = json!("a".repeat(300)), "`extras.id` must be");
    check(&|e| e["network"] = json!("n\u{e9}"), "`network` holds characters");
    check(&|e| e["network"] = json!(null), "`network` is missing");
    check(&|e| e["network"] = json!("n".repeat(5000)), "`network` is too long");
    check(&|e| e["amount"] = json!(1), "`amount` is not a string");
    check(&|e| e["amount"] = json!("1.0"), "`1.0` is no whole number");
    check(&|e| e["amount"] = json!("-1"), "no whole number");
    check(&|e| e["amount"] = json!("+1"), "no whole number");
    check(&|e| e["amount"] = json!("9999999999999999999"), "more than any budget holds");
    check(&|e| e["asset"] = json!("0x036CbD53"), "is no currency");
    check(&|e| e["asset"] = json!("USD\u{e9}"), "is no currency");
    check(&|e| e["asset"] = json!(null), "`asset` is missing");
    check(&|e| e["amount"] = json!("2"), "says 0.01 USD, but `amount` and `asset` say 0.02 USD");
    check(&|e| e["asset"] = json!("EUR"), "say 0.01 EUR");
    check(&|e| e["extras"]["decimals"] = json!(6), "`extras.decimals` must be 2");
    check(&|e| e["extras"]["price"] = json!("1e3 USD"), "`extras.price` expected an amount");
    check(&|e| e["extras"]["ttl"] = json!(-1), "`ttl` is no whole number");
}

#[test]
fn a_402_without_payable_offer_says_why() {
    let check = |body: &[u8], expect: OfferError| assert_eq!(read_body(body), Err(expect));
    check(b"", OfferError::None);
    check(b"{}", OfferError::None);
    check(b"{\"accepts\": 1}", OfferError::None);
    check(b"{\"accepts\": []}", OfferError::None);
    check(
        &body(&[json!({"scheme": "upto"}), json!(1)]),
        OfferError::OtherSchemes("`upto`, an entry without scheme".into()),
    );
    assert!(matches!(read_body(b"<html>"), Err(OfferError::Syntax { place: "the body", .. })));
    assert!(matches!(read_body(&vec![b' '; BODY_BYTES_MAX + 1]), Err(OfferError::TooLarge(_))));
    assert!(matches!(read_body(&body(&vec![entry(); OFFERS_MAX + 1])), Err(OfferError::TooLarge(_))));
}

#[test]
fn good_offers_among_bad_ones_are_read_in_order() {
    let (mut bad, mut dear) = (entry(), entry());
    bad["amount"] = json!("x");
    dear["extras"]["id"] = json!("second");
    let offers = read_body(&body(&[json!({"scheme": "upto"}), bad, entry(), dear])).unwrap();
    assert_eq!(offers.iter().map(|o| o.id().unwrap()).collect::<Vec<_>>(), ["abc", "second"]);
}

#[test]
fn the_field_is_read_where_the_body_has_no_offer() {
    let mut entry = entry();
    entry["extra"] = entry["extras"].take();
    entry.as_object_mut().unwrap().remove("resource");
    let field = json!({"x402Version": 2, "resource": {"url": "https://a.example/p"}, "accepts": [entry]}).to_string();
    let with = |field: String, body: &[u8]| {
        let headers = HeaderMap::from_iter([("payment-required".parse().unwrap(), field.parse().unwrap())]);
        read(&headers, body, 1000)
    };
    for text in [general_purpose::STANDARD.encode(&field), general_purpose::URL_SAFE_NO_PAD.encode(&field)] {
        for body in [&b""[..], b"{\"x402Version\":1,\"accepts\":[{\"scheme\":\"exact\"}]}", b"<html>"] {
            let offers = with(text.clone(), body).unwrap();
            assert_eq!((offers[0].id(), offers[0].resource.as_deref()), (Some("abc"), Some("https://a.example/p")));
        }
    }
    for bad in ["!", "e30", "eyI="] {
        assert!(with(bad.into(), b"").is_err(), "{bad}");
    }
    assert!(matches!(with("A".repeat(FIELD_BYTES_MAX + 1), b""), Err(OfferError::TooLarge(_))));
}

#[test]
fn shown_texts_cannot_steer_a_terminal() {
    assert_eq!(shortened("a \"b\"\u{1b}[2J\n"), "a \"b\"\\u{1b}[2J\\n");
    assert_eq!(shortened(&"x".repeat(200)).chars().count(), 121);
}

proptest! {
    #[test]
    fn no_answer_panics(body: Vec<u8>, field in "[!-~]{0,60}", amount in "\\PC{0,25}", asset in "\\PC{0,6}") {
        let headers = HeaderMap::from_iter([("payment-required".parse().unwrap(), field.parse().unwrap())]);
        let _ = read(&headers, &body, i64::MAX);
        let _ = one(|e| (e["amount"], e["asset"]) = (json!(amount), json!(asset)));
    }
}
