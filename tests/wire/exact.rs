//! Signed payments: vectors by an independent implementation (viem 2) and by real clients, and that no byte of one can
//! be changed.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use tollgate::payment::exact::{Checked, ExactError, check};
use tollgate::wire::evm::address::Address;
use tollgate::wire::evm::ecdsa::{SigningKey, address_of, recover, sign};
use tollgate::wire::evm::eip712::Domain;
use tollgate::wire::evm::{from_hex, to_hex};
use tollgate::wire::x402::Version;
use tollgate::wire::x402::facilitator::request;
use tollgate::wire::x402::network::Network;
use tollgate::wire::x402::payload::{Payload, PayloadKind};
use tollgate::wire::x402::receipt::Receipt;
use tollgate::wire::x402::requirements::{Requirements, ResourceInfo};

/// Between `validAfter` and `validBefore` of the vectors.
const NOW: u64 = 1_740_672_100;
/// The payer of the vectors: the first account of the well-known development mnemonic.
const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

pub fn file(name: &str) -> Vec<Value> {
    let path = format!("{}/tests/wire/x402/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// What the entry of `accepts` asks for.
pub fn asked(offer: &Value) -> Requirements {
    let text = |name: &str| offer[name].as_str().map(str::to_owned);
    let network = text("network").unwrap();
    Requirements {
        scheme: text("scheme").unwrap(),
        network: Network::parse(&network).or_else(|_| Network::from_v1_name(&network)).unwrap(),
        amount: text("amount").or_else(|| text("maxAmountRequired")).unwrap().parse().unwrap(),
        asset: text("asset").unwrap(),
        pay_to: text("payTo").unwrap(),
        max_timeout_seconds: offer["maxTimeoutSeconds"].as_u64().unwrap(),
        extra: offer["extra"].as_object().cloned().unwrap_or_default(),
    }
}

fn verdict(json: &Value, asked: &Requirements) -> Result<Checked, String> {
    let payload = Payload::from_json(json.clone(), Version::V2).map_err(|e| e.code().to_owned())?;
    check(&payload, asked, NOW, 5).map_err(|e| e.code().to_owned())
}

#[test]
fn vectors_have_the_digests_and_signers_of_the_reference() {
    let vectors = file("signed.json");
    assert_eq!(vectors.len(), 5);
    let signer = SigningKey::from_slice(&from_hex(KEY).unwrap()).unwrap();
    for vector in vectors {
        let json = vector["payload"].to_string();
        let mut read = Vec::new();
        for engine in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
            read.push(Payload::decode(engine.encode(&json).as_bytes(), Version::V2).unwrap());
        }
        assert!(read.iter().all(|payload| *payload == read[0]));
        let payload = &read[0];
        assert_eq!(payload.raw.to_string(), json, "the facilitator gets what the client sent");
        let asked = asked(&vector["payload"]["accepted"]);
        let chain_id = asked.network.evm_chain_id().unwrap();
        let (digest, signature) = match &payload.kind {
            PayloadKind::Eip3009 { authorization, signature } => {
                let domain = Domain {
                    name: vector["name"].as_str().unwrap().into(),
                    version: Some("2".into()),
                    chain_id,
                    verifying_contract: Address::parse(&asked.asset).unwrap(),
                };
                assert_eq!(to_hex(&domain.separator()), vector["separator"]);
                (authorization.digest(&domain), signature)
            }
            PayloadKind::Permit2 { authorization, signature } => (authorization.digest(chain_id), signature),
            other => panic!("{other:?}"),
        };
        assert_eq!(to_hex(&digest), vector["digest"]);
        assert_eq!(sign(&signer, &digest).as_slice(), signature, "signatures are deterministic");
        let payer = address_of(signer.verifying_key());
        assert_eq!(recover(&digest, signature), Some(payer));
        let checked = check(payload, &asked, NOW, 5).unwrap();
        assert_eq!((checked.payer, checked.recovered, checked.valid_before), (Some(payer), true, Some(1_740_672_154)));
    }
}

#[test]
fn payments_of_real_clients_hold_up() {
    let samples = file("clients.json");
    assert_eq!(samples.len(), 5);
    let mut keys = Vec::new();
    for sample in samples {
        let version = if sample["field"] == "x-payment" { Version::V1 } else { Version::V2 };
        let payload = Payload::decode(sample["value"].as_str().unwrap().as_bytes(), version).unwrap();
        let asked = asked(&sample["offer"]);
        let PayloadKind::Eip3009 { authorization, .. } = &payload.kind else { panic!("{payload:?}") };
        let end: u64 = authorization.valid_before.to_string().parse().unwrap();
        let checked = check(&payload, &asked, end - asked.max_timeout_seconds, 0).unwrap();
        assert!(checked.recovered);
        keys.push(checked.key);
        let info = ResourceInfo {
            url: sample["offer"]["resource"].as_str().unwrap_or(""),
            description: sample["offer"]["description"].as_str().unwrap_or(""),
            mime_type: sample["offer"]["mimeType"].as_str().unwrap_or(""),
        };
        let body = request(&payload, &asked, &info).unwrap();
        let mut offer = sample["offer"].clone();
        offer.as_object_mut().unwrap().remove("outputSchema");
        assert_eq!(body["paymentRequirements"], offer);
        assert_eq!(body["paymentPayload"], payload.raw);
        assert_eq!(body["x402Version"], version.number());
        let receipt = Receipt::decode(sample["receipt"].as_str().unwrap().as_bytes()).unwrap();
        assert!(receipt.success && receipt.transaction.starts_with("0x"));
        assert_eq!(receipt.network, payload.network);
        assert_eq!(Receipt::decode(receipt.encode(version).as_bytes()), Some(receipt));
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 5, "each payment has its own key");
}

/// The leaves of a JSON value that are text, by their pointer.
fn leaves(value: &Value, at: String, found: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) => found.push((at, text.clone())),
        Value::Object(members) => {
            for (name, value) in members {
                leaves(value, format!("{at}/{name}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn no_digit_of_a_payment_can_be_changed() {
    for vector in file("signed.json") {
        let payload = &vector["payload"];
        let asked = asked(&payload["accepted"]);
        let good = verdict(payload, &asked).unwrap();
        let mut found = Vec::new();
        leaves(&payload["payload"], "/payload".into(), &mut found);
        let mut tried = 0;
        for (at, text) in found {
            for i in 0..text.len() {
                for digit in ["0", "7", "e"] {
                    let mut changed = text.clone();
                    changed.replace_range(i..=i, digit);
                    if changed.eq_ignore_ascii_case(&text) {
                        continue;
                    }
                    let mut forged = payload.clone();
                    *forged.pointer_mut(&at).unwrap() = json!(changed);
                    assert!(verdict(&forged, &asked).is_err(), "{at}: {changed} for {text}");
                    tried += 1;
                }
            }
        }
        assert!(tried > 800, "{tried}");
        // The case of an address and of hex digits says nothing: the same payment, so the same key.
        let lower: Value = serde_json::from_str(&payload.to_string().replace("0xf39Fd6", "0xF39fD6")).unwrap();
        assert_ne!(lower, *payload);
        assert_eq!(verdict(&lower, &asked), Ok(good));
    }
}

#[test]
fn an_unproven_payment_of_a_contract_wallet_is_told_apart_by_its_key() {
    let vector = &file("signed.json")[0];
    let asked = asked(&vector["payload"]["accepted"]);
    let with = |changes: &[(&str, &str)]| {
        let mut payload = vector["payload"].clone();
        payload["payload"]["signature"] = json!(format!("0x{}", "ab".repeat(200)));
        for (at, text) in changes {
            *payload.pointer_mut(&format!("/payload/authorization/{at}")).unwrap() = json!(text);
        }
        verdict(&payload, &asked)
    };
    let good = with(&[]).unwrap();
    assert!(!good.recovered);
    let proven = verdict(&vector["payload"], &asked).unwrap();
    assert_eq!(good.key, proven.key, "the token takes the nonce once, whatever the signature");
    let other = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
    assert_ne!(with(&[("from", other)]).unwrap().key, good.key);
    assert_ne!(with(&[("nonce", &format!("0x{}", "01".repeat(32)))]).unwrap().key, good.key);
    assert_eq!(with(&[("to", other)]), Err("invalid_exact_evm_payload_recipient_mismatch".into()));
    assert_eq!(with(&[("value", "9999")]), Err("invalid_exact_evm_payload_authorization_value_mismatch".into()));
}

/// An edit of a payment.
type Change = fn(&mut Value);

#[test]
fn each_check_has_its_word() {
    let vectors = file("signed.json");
    let check_at = |number: usize, now: u64, skew: u64, change: Change| {
        let mut payload = vectors[number]["payload"].clone();
        let asked = asked(&payload["accepted"]);
        change(&mut payload);
        let payload = Payload::from_json(payload, Version::V2).unwrap();
        check(&payload, &asked, now, skew).map(|c| c.recovered).map_err(|e| e.code())
    };
    let prefix = |end| Err(format!("invalid_exact_evm_payload_{end}"));
    let eip3009 = |now, skew, change| check_at(0, now, skew, change).map_err(str::to_owned);
    let as_is: Change = |_| {};
    // validAfter 1740672089, validBefore 1740672154, maxTimeoutSeconds 60.
    assert_eq!(eip3009(1_740_672_094, 0, as_is), Ok(true));
    assert_eq!(eip3009(1_740_672_093, 0, as_is), prefix("authorization_valid_before"));
    assert_eq!(eip3009(1_740_672_089, 5, as_is), Ok(true));
    assert_eq!(eip3009(1_740_672_088, 6, as_is), prefix("authorization_valid_after"));
    assert_eq!(eip3009(1_740_672_148, 0, as_is), Ok(true));
    assert_eq!(eip3009(1_740_672_149, 0, as_is), prefix("authorization_valid_before"));
    assert_eq!(eip3009(u64::MAX, u64::MAX, as_is), prefix("authorization_valid_before"));
    let short: Change = |p| p["payload"]["signature"] = json!("0x1b");
    assert_eq!(eip3009(NOW, 5, short), prefix("signature"));
    let none: Change = |p| p["payload"]["signature"] = json!("0x");
    assert_eq!(eip3009(NOW, 5, none), prefix("signature"));
    let cheap: Change = |p| p["accepted"]["amount"] = json!("1");
    assert_eq!(eip3009(NOW, 5, cheap), Err("invalid_payment_requirements".into()));

    let permit = |change| check_at(3, NOW, 5, change);
    assert_eq!(permit(as_is), Ok(true));
    assert_eq!(check_at(4, NOW, 5, as_is), Ok(true));
    let upto: Change = |p| {
        p["payload"]["permit2Authorization"]["witness"]["facilitator"] = json!(format!("0x{}", "07".repeat(20)));
    };
    assert_eq!(check_at(4, NOW, 5, upto), Err("upto_unauthorized_facilitator"));
    assert_eq!(permit(upto), Err("invalid_payload"), "no facilitator in `exact`");
    let cases: [(Change, &str); 4] = [
        (
            |p| p["payload"]["permit2Authorization"]["spender"] = json!(format!("0x{}", "07".repeat(20))),
            "invalid_permit2_spender",
        ),
        (
            |p| p["payload"]["permit2Authorization"]["permitted"]["token"] = json!(format!("0x{}", "07".repeat(20))),
            "permit2_token_mismatch",
        ),
        (|p| p["payload"]["permit2Authorization"]["permitted"]["amount"] = json!("9999"), "permit2_amount_mismatch"),
        (
            |p| p["payload"]["permit2Authorization"]["witness"]["to"] = json!(format!("0x{}", "07".repeat(20))),
            "invalid_permit2_recipient_mismatch",
        ),
    ];
    for (change, code) in cases {
        assert_eq!(permit(change), Err(code));
    }
    assert_eq!(check_at(3, 1_740_672_149, 5, as_is), Err("permit2_deadline_expired"));
    assert_eq!(check_at(3, 1_740_672_088, 6, as_is), Err("permit2_not_yet_valid"));
}

#[test]
fn a_payment_is_only_good_for_what_it_names() {
    let vector = &file("signed.json")[0];
    let payload = Payload::from_json(vector["payload"].clone(), Version::V2).unwrap();
    let good = asked(&vector["payload"]["accepted"]);
    let refused = |change: fn(&mut Requirements)| {
        let (mut asked, mut payload) = (good.clone(), payload.clone());
        change(&mut asked);
        // The client echoes whatever is asked: the signature alone decides.
        payload.accepted.as_mut().unwrap().network = asked.network.to_string();
        payload.accepted.as_mut().unwrap().asset.clone_from(&asked.asset);
        payload.accepted.as_mut().unwrap().scheme.clone_from(&asked.scheme);
        payload.accepted.as_mut().unwrap().extra.clone_from(&asked.extra);
        check(&payload, &asked, NOW, 5).unwrap_err()
    };
    assert_eq!(refused(|r| r.network = Network::parse("eip155:8453").unwrap()), ExactError::Signature);
    assert_eq!(refused(|r| r.asset = format!("0x{}", "07".repeat(20))), ExactError::Signature);
    assert_eq!(refused(|r| _ = r.extra.insert("name".into(), json!("USD Coin"))), ExactError::Signature);
    assert_eq!(refused(|r| r.network = Network::from_v1_name("solana").unwrap()), ExactError::Unsupported);
    assert_eq!(refused(|r| r.scheme = "upto".into()), ExactError::Unsupported);
    assert_eq!(
        refused(|r| _ = r.extra.insert("assetTransferMethod".into(), json!("permit2"))),
        ExactError::Unsupported
    );
    assert_eq!(refused(|r| r.extra = Map::new()).code(), "invalid_payment_requirements");
    let mut other = vector["payload"].clone();
    other["payload"] = json!({"delegator": "0x"});
    let other = Payload::from_json(other, Version::V2).unwrap();
    assert_eq!(check(&other, &good, NOW, 5).unwrap_err().code(), "invalid_payload");
}

#[test]
fn a_transaction_of_solana_is_known_by_its_message() {
    let asked = Requirements {
        network: Network::from_v1_name("solana-devnet").unwrap(),
        asset: "4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU".into(),
        pay_to: "2wKupLR9q6wXYppw8Gr2NvWxKBUqm4PPJKkQfoxHDBg4".into(),
        ..asked(&file("signed.json")[0]["payload"]["accepted"])
    };
    let with = |signature: u8, last: u8| {
        let instruction = vec![1, 0, 0, 1, last];
        let message = [vec![0x80, 2, 0, 1, 1], vec![7; 32], vec![8; 32], instruction, vec![0]].concat();
        let transaction = [vec![2], vec![0; 64], vec![signature; 64], message].concat();
        let payload = json!({"x402Version": 2, "accepted": asked.to_v2(), "payload": {"transaction": STANDARD.encode(transaction)}});
        verdict(&payload, &asked).unwrap()
    };
    assert_eq!(with(1, 9).key, with(2, 9).key);
    assert_ne!(with(1, 9).key, with(1, 8).key);
    assert!(!with(1, 9).recovered);
    let junk = json!({"x402Version": 2, "accepted": asked.to_v2(), "payload": {"transaction": "AAAA"}});
    assert_eq!(verdict(&junk, &asked), Err("invalid_payload".into()));
}
