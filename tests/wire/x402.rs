//! x402's formats: what is refused, what is compared, and what a facilitator's answer means.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate::wire::evm::address::Address;
use tollgate::wire::evm::u256::U256;
use tollgate::wire::x402::Version;
use tollgate::wire::x402::facilitator::{
    SettleVerdict, Settled, VerifyVerdict, request, settle_verdict, supported, verify_verdict,
};
use tollgate::wire::x402::network::Network;
use tollgate::wire::x402::payload::{FIELD_BYTES_MAX, Payload, PayloadError, PayloadKind};
use tollgate::wire::x402::receipt::Receipt;
use tollgate::wire::x402::requirements::{Mismatch, ResourceInfo};
use tollgate::wire::x402::svm;

use crate::exact::{asked, file};

fn good() -> Value {
    file("signed.json")[0]["payload"].clone()
}

fn decode(json: &str) -> Result<Payload, PayloadError> {
    Payload::decode(STANDARD.encode(json).as_bytes(), Version::V2)
}

#[test]
fn a_payment_is_read_in_one_way_or_not_at_all() {
    let text = good().to_string();
    assert!(decode(&text).is_ok());
    let twice = [
        (r#""value":"#, r#""value":"1","value":"#),
        (r#""x402Version":2"#, r#""x402Version":2,"x402Version":2"#),
        (r#""payload":{"#, r#""payload":{"a":1,"a":2,"#),
        (r#""extra":{"#, r#""extra":{"n\u0061me":"x","#),
    ];
    for (part, with) in twice {
        let changed = text.replacen(part, with, 1);
        assert_ne!(changed, text);
        assert!(matches!(decode(&changed), Err(PayloadError::Json(_))), "{changed}");
    }
    for text in ["", "null", "[]", "{}", "{", "1", &format!("{text}x"), &format!("{text}{text}")] {
        assert!(decode(text).is_err(), "{text}");
    }
    assert_eq!(Payload::decode(b"!", Version::V2), Err(PayloadError::Base64));
    assert_eq!(Payload::decode(b"ab+_", Version::V2), Err(PayloadError::Base64), "two alphabets");
    assert_eq!(Payload::decode(&vec![b'A'; FIELD_BYTES_MAX + 1], Version::V2), Err(PayloadError::TooLong));
}

#[test]
fn members_of_another_type_or_shape_are_refused() {
    let path = |at: &str, value: Value| {
        let mut payload = good();
        *payload.pointer_mut(at).unwrap() = value;
        Payload::from_json(payload, Version::V2).map_err(|e| e.code())
    };
    for (at, values) in [
        ("/x402Version", vec![json!(1), json!("2"), json!(null), json!(2.5), json!(3)]),
        ("/accepted", vec![json!(null), json!([]), json!("exact")]),
        ("/accepted/amount", vec![json!(10000), json!(null)]),
        ("/accepted/maxTimeoutSeconds", vec![json!("60"), json!(-1), json!(1.5), json!(null)]),
        ("/accepted/extra", vec![json!([]), json!("x")]),
        ("/resource", vec![json!("https://a.example/p"), json!([])]),
        ("/resource/url", vec![json!(1), json!(null)]),
        ("/payload", vec![json!(null), json!([]), json!("0x")]),
        ("/payload/signature", vec![json!("1b"), json!("0x1"), json!("0xgg"), json!(null)]),
        ("/payload/authorization", vec![json!(null), json!([])]),
        ("/payload/authorization/value", vec![json!(10000), json!("01"), json!("-1"), json!("0x1"), json!("1e4")]),
        ("/payload/authorization/validBefore", vec![json!(1_740_672_154), json!(""), json!(" 1")]),
        (
            "/payload/authorization/to",
            vec![json!("0x00"), json!(null), json!("209693Bc6afc0C5328bA36FaF03C514EF312287C")],
        ),
        ("/payload/authorization/nonce", vec![json!("0x00"), json!(format!("0x{}", "00".repeat(33))), json!("1")]),
    ] {
        for value in values {
            let code = if at == "/x402Version" { "invalid_x402_version" } else { "invalid_payload" };
            assert_eq!(path(at, value.clone()), Err(code), "{at}: {value}");
        }
    }
    assert!(path("/accepted/maxTimeoutSeconds", json!(60.0)).is_ok());
    let mut both = good();
    both["payload"]["permit2Authorization"] = json!({});
    assert_eq!(Payload::from_json(both, Version::V2), Err(PayloadError::Ambiguous));
    let mut other = good();
    other["payload"] = json!({"delegator": "0x"});
    assert!(matches!(Payload::from_json(other, Version::V2).unwrap().kind, PayloadKind::Other(_)));
    let mut scheme = good();
    scheme["accepted"]["scheme"] = json!("batch-settlement");
    scheme["payload"]["authorization"] = json!(7);
    assert!(matches!(Payload::from_json(scheme, Version::V2).unwrap().kind, PayloadKind::Other(_)));
}

#[test]
fn an_echoed_offer_is_compared_by_value() {
    let asked = asked(&good()["accepted"]);
    let compare = |change: &dyn Fn(&mut Value)| {
        let mut payload = good();
        change(&mut payload["accepted"]);
        asked.matches(&Payload::from_json(payload, Version::V2).unwrap().accepted.unwrap())
    };
    assert_eq!(compare(&|_| ()), Ok(()));
    assert_eq!(compare(&|a| a["asset"] = json!(asked.asset.to_lowercase())), Ok(()));
    assert_eq!(compare(&|a| a["payTo"] = json!(asked.pay_to.to_uppercase().replace("0X", "0x"))), Ok(()));
    assert_eq!(compare(&|a| a["extra"] = json!({"more": {"x": 1}, "version": "2", "name": "USDC"})), Ok(()));
    assert_eq!(compare(&|a| a["unknown"] = json!(1)), Ok(()));
    assert_eq!(compare(&|a| a["extra"] = json!({"name": "USDC"})), Err(Mismatch::Extra("version".into())));
    assert_eq!(compare(&|a| a["extra"]["name"] = json!("usdc")), Err(Mismatch::Extra("name".into())));
    assert_eq!(compare(&|a| _ = a.as_object_mut().unwrap().remove("extra")), Err(Mismatch::Extra("name".into())));
    assert_eq!(compare(&|a| a["scheme"] = json!("upto")), Err(Mismatch::Scheme));
    assert_eq!(compare(&|a| a["network"] = json!("base-sepolia")), Err(Mismatch::Network));
    assert_eq!(compare(&|a| a["amount"] = json!("010000")), Err(Mismatch::Amount));
    assert_eq!(compare(&|a| a["amount"] = json!("1")), Err(Mismatch::Amount));
    assert_eq!(compare(&|a| a["asset"] = json!("USDC")), Err(Mismatch::Asset));
    assert_eq!(compare(&|a| a["payTo"] = json!("merchant")), Err(Mismatch::PayTo));
    assert_eq!(compare(&|a| a["maxTimeoutSeconds"] = json!(61)), Err(Mismatch::MaxTimeoutSeconds));
    // Addresses of other networks have a case.
    let mut solana = asked.clone();
    solana.network = Network::from_v1_name("solana").unwrap();
    let mut accepted = Payload::from_json(good(), Version::V2).unwrap().accepted.unwrap();
    accepted.network = solana.network.to_string();
    accepted.asset = accepted.asset.to_lowercase();
    assert_eq!(solana.matches(&accepted), Err(Mismatch::Asset));
}

#[test]
fn a_request_carries_our_requirements_and_the_clients_payment() {
    let (payload, asked) = (Payload::from_json(good(), Version::V2).unwrap(), asked(&good()["accepted"]));
    let info = ResourceInfo { url: "https://a.example/p", description: "", mime_type: "text/html" };
    assert_eq!(
        request(&payload, &asked, &info),
        Some(json!({"x402Version": 2, "paymentPayload": good(), "paymentRequirements": good()["accepted"]}))
    );
    let v1 = json!({"x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": good()["payload"]});
    let v1 = Payload::from_json(v1, Version::V1).unwrap();
    let body = request(&v1, &asked, &info).unwrap();
    assert_eq!(
        body["paymentRequirements"],
        json!({"scheme": "exact", "network": "base-sepolia", "maxAmountRequired": "10000",
            "resource": "https://a.example/p", "description": "", "mimeType": "text/html",
            "payTo": asked.pay_to, "maxTimeoutSeconds": 60, "asset": asked.asset, "extra": {"name": "USDC", "version": "2"}})
    );
    let mut unnamed = asked.clone();
    unnamed.network = Network::parse("eip155:1").unwrap();
    assert_eq!(request(&v1, &unnamed, &info), None);
}

#[test]
fn only_a_plain_answer_says_whether_money_moved() {
    let settle = |status, body: &str| match settle_verdict(status, body.as_bytes()) {
        SettleVerdict::Success(settled) => format!("success {}", settled.transaction),
        SettleVerdict::Refused(reason, _) => format!("refused {reason}"),
        SettleVerdict::Unknown { answer: Some(settled), .. } => format!("pending {}", settled.transaction),
        SettleVerdict::Unknown { answer: None, .. } => "unknown".to_owned(),
    };
    let success = r#"{"success":true,"transaction":"0xab","network":"eip155:8453","payer":"0x1","new":[1]}"#;
    let pending = r#"{"success":false,"errorReason":"settlement_pending","transaction":"0xab","network":"x"}"#;
    let refused = r#"{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"x"}"#;
    for status in [200, 202, 400, 402, 500, 503] {
        assert_eq!(settle(status, success), "success 0xab");
        assert_eq!(settle(status, pending), "pending 0xab");
        assert_eq!(settle(status, refused), "refused insufficient_funds");
        assert_eq!(settle(status, r#"{"success":false}"#), "refused unexpected_settle_error");
        assert_eq!(
            settle(status, r#"{"success":false,"errorReason":null,"payer":null}"#),
            "refused unexpected_settle_error"
        );
        for unreadable in [
            "",
            "null",
            "[]",
            "true",
            "<html>502</html>",
            "{}",
            r#"{"error":"rate limited"}"#,
            r#"{"success":"false"}"#,
            r#"{"success":0}"#,
            r#"{"success":null}"#,
            r#"{"success":false,"success":true}"#,
            r#"{"success":false,"errorReason":"x","transaction":5}"#,
            r#"{"success":false,"errorReason":7}"#,
            r#"{"success":false,"errorReason":"insufficient_funds""#,
            r#"{"isValid":true}"#,
        ] {
            assert_eq!(settle(status, unreadable), "unknown", "{unreadable}");
        }
    }
    let long = format!(r#"{{"success":true,"transaction":"{}"}}"#, "a".repeat(300_000));
    assert_eq!(settle(200, &long), "unknown");
}

#[test]
fn a_refusal_to_verify_counts_at_any_status_and_a_consent_only_when_it_is_one() {
    let verify = |status, body: &str| match verify_verdict(status, body.as_bytes()) {
        VerifyVerdict::Valid(verified) => format!("valid {}", verified.payer.unwrap_or_default()),
        VerifyVerdict::Invalid(verified) => format!("invalid {}", verified.reason.unwrap_or_default()),
        VerifyVerdict::Unknown(_) => "unknown".to_owned(),
    };
    let (valid, invalid) = (r#"{"isValid":true,"payer":"0x1"}"#, r#"{"isValid":false,"invalidReason":"r"}"#);
    assert_eq!(verify(200, valid), "valid 0x1");
    assert_eq!(verify(500, valid), "unknown");
    for status in [200, 400, 412, 500] {
        assert_eq!(verify(status, invalid), "invalid r");
        for unreadable in ["", "{}", r#"{"isValid":"true"}"#, r#"{"isValid":true,"isValid":false}"#, r#"{"isValid":1}"#]
        {
            assert_eq!(verify(status, unreadable), "unknown", "{unreadable}");
        }
    }
    let kinds =
        br#"{"kinds":[{"x402Version":2,"scheme":"exact","network":"solana:a","extra":{"feePayer":"F"}},{"scheme":1},
        {"x402Version":1,"scheme":"exact","network":"base"}],"extensions":[],"signers":{}}"#;
    let kinds = supported(kinds).unwrap();
    assert_eq!(kinds.len(), 2);
    assert_eq!((kinds[0].extra["feePayer"].as_str(), kinds[1].version), (Some("F"), 1));
    assert!(supported(b"{}").is_err());
}

#[test]
fn receipts_are_written_as_each_version_has_them() {
    let settled = Settled {
        success: true,
        reason: None,
        transaction: "0xab".into(),
        network: None,
        payer: Some("0x1".into()),
        amount: Some("10000".into()),
    };
    let base = Network::parse("eip155:8453").unwrap();
    let shown = |version| {
        let field = Receipt::new(&settled, &base, version).encode(version);
        String::from_utf8(STANDARD.decode(field).unwrap()).unwrap()
    };
    assert_eq!(
        shown(Version::V2),
        r#"{"success":true,"transaction":"0xab","network":"eip155:8453","payer":"0x1","amount":"10000"}"#
    );
    assert_eq!(shown(Version::V1), r#"{"success":true,"transaction":"0xab","network":"base","payer":"0x1"}"#);
    let mut receipt = Receipt::new(&settled, &base, Version::V2);
    receipt.success = false;
    receipt.error_reason = Some("insufficient_funds".into());
    receipt.extensions.insert("e".into(), json!({"info": {}}));
    assert_eq!(Receipt::decode(receipt.encode(Version::V2).as_bytes()), Some(receipt));
    assert_eq!(Receipt::decode(b"e30="), None);
}

proptest! {
    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), status in any::<u16>()) {
        let _ = Payload::decode(&bytes, Version::V2);
        let _ = Payload::decode(STANDARD.encode(&bytes).as_bytes(), Version::V1);
        let _ = (settle_verdict(status, &bytes), verify_verdict(status, &bytes), supported(&bytes));
        let _ = (Receipt::decode(&bytes), svm::message(&bytes));
        let text = String::from_utf8_lossy(&bytes);
        let _ = (Address::parse(&text), U256::parse(&text), Network::parse(&text));
    }

    #[test]
    fn numbers_and_addresses_round_trip(word in any::<[u8; 32]>(), address in any::<[u8; 20]>(), small in any::<u128>()) {
        let number = U256::from_be_bytes(word);
        prop_assert_eq!(U256::parse(&number.to_string()), Ok(number));
        prop_assert_eq!(number.to_be_bytes(), word);
        prop_assert_eq!(U256::parse(&small.to_string()).map(U256::as_u128), Ok(Some(small)));
        let address = Address::new(address);
        prop_assert_eq!(Address::parse(&address.to_string()), Ok(address));
    }
}
