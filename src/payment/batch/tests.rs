use http::{HeaderMap, HeaderValue};

use super::*;
use crate::payment::id::Resource;
use crate::payment::presented::{Presented, presented};
use crate::payment::signed::{Candidate, Rules, candidates};
use crate::wire::amount::Money;
use crate::wire::jwk::PublicKey;
use crate::wire::signature::RequestView;

const NOW_MS: u64 = 1_700_000_010_000;
const RULES: Rules =
    Rules { skew: 30, window: 86_400, require_authority: false, require_path: false, lenient_signature: true };

/// The golden request.
fn golden() -> HeaderMap {
    let text = include_str!("../../../tests/wire/signature/batch_settlement.txt");
    let lines = text.split_once("\n\n").unwrap().1.lines().skip(1).map_while(|line| line.trim_end().split_once(": "));
    lines
        .map(|(n, v)| (http::HeaderName::from_bytes(n.as_bytes()).unwrap(), HeaderValue::from_str(v).unwrap()))
        .collect()
}

fn view(headers: &HeaderMap) -> RequestView<'_> {
    RequestView { method: "GET", scheme: "https", authority: "example.com", path: "/", query: None, headers }
}

fn read() -> (Payload, Candidate) {
    let headers = golden();
    let Presented::X402(payload) = presented(&headers).unwrap() else { panic!("no x402 payment") };
    let candidate = candidates(&view(&headers), &cover(&payload), &RULES, NOW_MS).unwrap().remove(0);
    (*payload, candidate)
}

fn terms() -> (Template, WireAmount) {
    let wire = Money::parse("0.05 USD").unwrap().wire();
    let terms = BatchTerms {
        network: "cloudflare:402".into(),
        pay_to: "merchant".into(),
        terms_url: String::new(),
        registration_url: String::new(),
    };
    (terms.template(&wire, 30), wire)
}

#[test]
fn the_golden_payment_holds() {
    let (payload, candidate) = read();
    let (template, wire) = terms();
    assert_eq!(id_of(&payload), None);
    assert_eq!((&*candidate.agent.to_string(), candidate.created), ("https://signer.example.com", 1_700_000_000));
    let key = PublicKey::from_x("JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs").unwrap();
    assert!(key.verifies(candidate.base.as_bytes(), &candidate.signature));
    assert_eq!(pays(&payload, &wire), Ok(()));
    assert_eq!(accepts(payload.accepted.as_ref().unwrap(), &template, wire.amount), Ok(()));
    assert!(candidate.is_fresh(30, 1_700_000_060_999).is_ok() && candidate.is_fresh(30, 1_700_000_061_000).is_err());
}

/// The ledger keeps these keys: a change of one byte would let a spent payment through.
#[test]
fn keys_of_signatures_are_golden() {
    let (_, mut candidate) = read();
    let page = Resource { method: "GET", authority: "example.com", path: "/", query: "", tool: "" };
    let key = |candidate: &Candidate, page| {
        candidate.key("https://signer.example.com", "poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U", &page)
    };
    assert_eq!(key(&candidate, page).to_string(), "024e8ac3cfc4f03cfae37293b1b4f4fd22");
    assert_eq!(key(&candidate, page), key(&candidate, Resource { method: "HEAD", ..page }));
    for other in [
        Resource { method: "POST", ..page },
        Resource { authority: "b.example", ..page },
        Resource { path: "/b", ..page },
        Resource { query: "b", ..page },
    ] {
        assert_ne!(key(&candidate, page), key(&candidate, other));
    }
    candidate.names_request = true;
    assert_eq!(key(&candidate, page).to_string(), "021f60f1b39d63818ee87402e67f650742");
    assert_eq!(key(&candidate, page), key(&candidate, Resource { path: "/b", ..page }));
}

#[test]
fn amounts_are_counts_that_reach_the_price() {
    let (payload, _) = read();
    let with = |amount: Value, asset: &str| {
        let kind = PayloadKind::Other(json!({"amount": amount, "asset": asset}));
        pays(&Payload { kind, ..payload.clone() }, &terms().1).map_err(|refusal| refusal.reason)
    };
    assert_eq!(with(json!("5"), "USD"), Ok(()));
    assert_eq!(with(json!("005"), "USD"), Ok(()));
    assert_eq!(with(json!("340282366920938463463374607431768211455"), "USD"), Ok(()));
    for (amount, asset) in [("4", "USD"), ("0", "USD"), ("5", "EUR"), ("5", "usd"), ("5", "USD6"), ("5", "")] {
        assert_eq!(with(json!(amount), asset), Err(Reason::PriceNotAcceptable), "{amount} {asset}");
    }
    for amount in [json!(5), json!("+5"), json!("-5"), json!("5.0"), json!(""), json!(null), json!("5e1")] {
        assert_eq!(with(amount.clone(), "USD"), Err(Reason::InvalidPayment), "{amount}");
    }
    let huge = json!("340282366920938463463374607431768211456");
    assert_eq!(with(huge, "USD"), Err(Reason::InvalidPayment));
}

#[test]
fn a_confirmation_is_read_by_old_and_new_clients() {
    let charged = Money::parse("0.05 USD").unwrap().wire();
    let network = "cloudflare:402";
    let field = Confirmation { network, payer: "signer.example.com", charged, timestamp: 7, id: "9" }.encode(None);
    let read: Value = serde_json::from_slice(&STANDARD.decode(&field).unwrap()).unwrap();
    let expect = json!({"success": true, "transaction": "", "network": network, "payer": "signer.example.com",
        "amount": "5", "asset": "USD", "timestamp": 7, "extra": {"timestamp": 7, "id": "9"}});
    assert_eq!(read, expect);
    let receipt = crate::wire::x402::receipt::Receipt::decode(field.as_bytes()).unwrap();
    assert!(receipt.success && receipt.amount.as_deref() == Some("5"));
}
