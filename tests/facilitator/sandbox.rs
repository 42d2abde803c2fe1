//! The built-in facilitator: real checks, paper money.

use bytes::Bytes;
use k256::ecdsa::SigningKey;
use serde_json::{Map, Value, json};
use tollgate::clock::Clock;
use tollgate::facilitator::{Endpoint, Facilitators, Kind, Limits, SettleOutcome};
use tollgate::wire::evm::address::Address;
use tollgate::wire::evm::eip712::Domain;
use tollgate::wire::evm::eip3009::Authorization;
use tollgate::wire::evm::u256::U256;
use tollgate::wire::evm::{ecdsa, to_hex};
use tollgate::wire::x402::Version;
use tollgate::wire::x402::assets;
use tollgate::wire::x402::facilitator::{VerifyVerdict, request};
use tollgate::wire::x402::network::Network;
use tollgate::wire::x402::payload::Payload;
use tollgate::wire::x402::requirements::{Requirements, ResourceInfo};

use super::said;

const NOW_S: u64 = 1_800_000_000;
const PAY_TO: &str = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";

struct Sandbox {
    facilitators: Facilitators,
    clock: Clock,
}

impl Sandbox {
    fn start() -> Sandbox {
        let clock = Clock::manual(NOW_S * 1000);
        let (facilitators, service) = Facilitators::new(vec![Endpoint::sandbox(clock.clone())], Limits::default());
        tokio::spawn(service.run());
        Sandbox { facilitators, clock }
    }

    /// `valid PAYER` or `invalid REASON`.
    async fn verify(&self, body: &Bytes) -> String {
        let kind = Kind { version: Version::V2, scheme: "exact".into(), network: "eip155:84532".into() };
        match self.facilitators.verify(&kind, body.clone(), Some(0)).await.unwrap() {
            (0, VerifyVerdict::Valid(verified), _) => format!("valid {}", verified.payer.unwrap()),
            (0, VerifyVerdict::Invalid(verified), _) => format!("invalid {}", verified.reason.unwrap()),
            other => panic!("{other:?}"),
        }
    }

    async fn settle(&self, body: &Bytes) -> String {
        said(&self.facilitators.settle(0, body.clone()).await)
    }

    /// Neither verified nor settled, and for the same reason.
    async fn refuses(&self, body: &Bytes, reason: &str) {
        assert_eq!(self.verify(body).await, format!("invalid {reason}"));
        assert_eq!(self.settle(body).await, format!("refused {reason}"));
    }
}

fn requirements(network: &str) -> Requirements {
    let asset = assets::ASSETS.iter().find(|asset| asset.network == network).unwrap();
    let extra = json!({"name": asset.name, "version": asset.version});
    Requirements {
        scheme: "exact".into(),
        network: Network::parse(network).unwrap(),
        amount: 10_000,
        asset: asset.address.into(),
        pay_to: PAY_TO.into(),
        max_timeout_seconds: 60,
        extra: extra.as_object().cloned().unwrap(),
    }
}

fn key() -> SigningKey {
    SigningKey::from_slice(&[7; 32]).unwrap()
}

fn payer() -> Address {
    ecdsa::address_of(key().verifying_key())
}

/// A payment of what is asked, as a client makes it.
fn payment(asked: &Requirements, nonce: u8, version: Version) -> Value {
    let authorization = Authorization {
        from: payer(),
        to: Address::parse(&asked.pay_to).unwrap(),
        value: U256::from(asked.amount),
        valid_after: U256::from(NOW_S - 600),
        valid_before: U256::from(NOW_S + 60),
        nonce: [nonce; 32],
    };
    let domain = Domain {
        name: asked.extra["name"].as_str().unwrap().into(),
        version: asked.extra["version"].as_str().map(Into::into),
        chain_id: asked.network.evm_chain_id().unwrap(),
        verifying_contract: Address::parse(&asked.asset).unwrap(),
    };
    let payload = json!({
        "signature": to_hex(&ecdsa::sign(&key(), &authorization.digest(&domain))),
        "authorization": {
            "from": authorization.from.to_string(), "to": authorization.to.to_string(),
            "value": authorization.value.to_string(), "validAfter": authorization.valid_after.to_string(),
            "validBefore": authorization.valid_before.to_string(), "nonce": to_hex(&authorization.nonce),
        },
    });
    match version {
        Version::V1 => {
            let network = asked.network.v1_name().unwrap();
            json!({"x402Version": 1, "scheme": "exact", "network": network, "payload": payload})
        }
        Version::V2 => json!({"x402Version": 2, "accepted": asked.to_v2(), "payload": payload}),
    }
}

/// What the gateway sends.
fn body(payment: Value, asked: &Requirements, version: Version) -> Bytes {
    let payload = Payload::from_json(payment, version).unwrap();
    let resource = ResourceInfo { url: "https://a.example/p", description: "", mime_type: "" };
    request(&payload, asked, &resource).unwrap().to_string().into()
}

#[tokio::test]
async fn a_payment_of_either_version_is_verified_as_often_as_asked_and_settled_once() {
    let sandbox = Sandbox::start();
    let asked = requirements("eip155:84532");
    for (nonce, version, network) in [(1, Version::V1, "base-sepolia"), (2, Version::V2, "eip155:84532")] {
        let body = body(payment(&asked, nonce, version), &asked, version);
        for _ in 0..2 {
            assert_eq!(sandbox.verify(&body).await, format!("valid {}", payer()));
        }
        let outcome = sandbox.facilitators.settle(0, body.clone()).await;
        let transaction = said(&outcome);
        assert!(transaction.starts_with("success 0x") && transaction.len() == "success 0x".len() + 64, "{transaction}");
        let SettleOutcome::Verdict(_, raw) = outcome else { panic!() };
        let raw: Value = serde_json::from_slice(&raw).unwrap();
        assert_eq!(
            (&raw["network"], &raw["sandbox"], &raw["amount"]),
            (&json!(network), &json!(true), &json!("10000"))
        );
        sandbox.refuses(&body, "invalid_exact_evm_nonce_already_used").await;
    }
    // The other version of a spent authorisation is the same authorisation.
    let again = body(payment(&asked, 1, Version::V2), &asked, Version::V2);
    sandbox.refuses(&again, "invalid_exact_evm_nonce_already_used").await;
    assert_eq!(sandbox.facilitators.find("sandbox:"), Some(0));
    assert_eq!(sandbox.facilitators.extra(Version::V1, "exact", "base-sepolia"), Some(Map::new()));
    assert_eq!(sandbox.facilitators.extra(Version::V2, "exact", "eip155:8453"), None);
}

#[tokio::test]
async fn one_authorisation_sent_at_once_by_many_is_settled_once() {
    let sandbox = Sandbox::start();
    let asked = requirements("eip155:84532");
    let body = body(payment(&asked, 1, Version::V2), &asked, Version::V2);
    let calls: Vec<_> = (0..32)
        .map(|_| {
            let (facilitators, body) = (sandbox.facilitators.clone(), body.clone());
            tokio::spawn(async move { said(&facilitators.settle(0, body).await) })
        })
        .collect();
    let mut settled = 0;
    for call in calls {
        settled += usize::from(call.await.unwrap().starts_with("success"));
    }
    assert_eq!(settled, 1);
}

#[tokio::test]
async fn a_tampered_payment_is_refused() {
    let sandbox = Sandbox::start();
    let asked = requirements("eip155:84532");
    let good = payment(&asked, 1, Version::V2);
    let signature = good["payload"]["signature"].as_str().unwrap().to_owned();
    // A digit of r, of s, and of the nonce.
    for at in [2, 40, 65, 66, 100, 129] {
        let mut bad = good.clone();
        let digit = if signature.as_bytes()[at] == b'0' { "1" } else { "0" };
        let mut changed = signature.clone();
        changed.replace_range(at..=at, digit);
        bad["payload"]["signature"] = changed.into();
        sandbox.refuses(&body(bad, &asked, Version::V2), "invalid_exact_evm_payload_signature").await;
    }
    for (member, value, reason) in [
        ("nonce", to_hex(&[9; 32]), "invalid_exact_evm_payload_signature"),
        ("from", PAY_TO.to_owned(), "invalid_exact_evm_payload_signature"),
        ("to", payer().to_string(), "invalid_exact_evm_payload_recipient_mismatch"),
        ("value", "9999".to_owned(), "invalid_exact_evm_payload_authorization_value_mismatch"),
        ("validBefore", (NOW_S + 5).to_string(), "invalid_exact_evm_payload_authorization_valid_before"),
        ("validAfter", (NOW_S + 1).to_string(), "invalid_exact_evm_payload_authorization_valid_after"),
    ] {
        let mut bad = good.clone();
        bad["payload"]["authorization"][member] = value.into();
        sandbox.refuses(&body(bad, &asked, Version::V2), reason).await;
    }
    let mut contract = good.clone();
    contract["payload"]["signature"] = to_hex(&[1; 96]).into();
    let reason = "invalid_exact_evm_payload_undeployed_smart_wallet";
    sandbox.refuses(&body(contract, &asked, Version::V2), reason).await;
    let dearer = Requirements { amount: 10_001, ..asked.clone() };
    sandbox.refuses(&body(good.clone(), &dearer, Version::V2), "invalid_payment_requirements").await;
    // None of this spent the authorisation.
    assert!(sandbox.settle(&body(good, &asked, Version::V2)).await.starts_with("success"));
}

#[tokio::test]
async fn an_authorisation_ends() {
    let sandbox = Sandbox::start();
    let asked = requirements("eip155:84532");
    let body = body(payment(&asked, 1, Version::V2), &asked, Version::V2);
    assert!(sandbox.verify(&body).await.starts_with("valid"));
    sandbox.clock.advance(55_000);
    sandbox.refuses(&body, "invalid_exact_evm_payload_authorization_valid_before").await;
}

#[tokio::test]
async fn real_money_is_refused() {
    let sandbox = Sandbox::start();
    for (network, version) in [("eip155:8453", Version::V1), ("eip155:8453", Version::V2), ("eip155:1", Version::V2)] {
        let asked = requirements(network);
        let body = body(payment(&asked, 1, version), &asked, version);
        sandbox.refuses(&body, "invalid_network").await;
        let SettleOutcome::Verdict(_, raw) = sandbox.facilitators.settle(0, body).await else { panic!() };
        let raw: Value = serde_json::from_slice(&raw).unwrap();
        assert!(raw["errorMessage"].as_str().unwrap().contains("moves no money"), "{raw}");
    }
    let kind = Kind { version: Version::V2, scheme: "exact".into(), network: "eip155:8453".into() };
    let unavailable = sandbox.facilitators.verify(&kind, Bytes::new(), None).await.unwrap_err();
    assert!(unavailable.why.contains("no facilitator takes exact on eip155:8453"));
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let sandbox = Sandbox::start();
    let asked = requirements("eip155:84532");
    let payment = payment(&asked, 1, Version::V2);
    for (body, reason) in [
        (json!([]), "invalid_payload"),
        (json!({}), "invalid_x402_version"),
        (json!({"x402Version": 3}), "invalid_x402_version"),
        (json!({"x402Version": 2}), "invalid_payload"),
        (json!({"x402Version": 1, "paymentPayload": payment}), "invalid_x402_version"),
        (json!({"x402Version": 2, "paymentPayload": payment}), "invalid_payment_requirements"),
    ] {
        sandbox.refuses(&body.to_string().into(), reason).await;
    }
}
