//! A wallet: a key that signs token transfers, and requests that carry them, which a test can bend.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tollgate::wire::evm::address::Address;
use tollgate::wire::evm::ecdsa::{self, SigningKey};
use tollgate::wire::evm::eip712::{Domain, keccak256};
use tollgate::wire::evm::eip3009::Authorization;
use tollgate::wire::evm::to_hex;
use tollgate::wire::evm::u256::U256;
use tollgate::wire::x402::network::Network;

use super::agent::{field_offer, now};
use super::client::{Answer, exchange, get};
use super::facilitator::Facilitator;
use super::gateway::Gateway;
use super::origin::Origin;

/// Who is paid.
pub const PAY_TO: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
/// USDC on Base Sepolia.
pub const USDC: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";

/// Makes keys and nonces that differ within one test run.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A number that no other payment of this test run has.
pub fn fresh() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub struct Wallet {
    pub key: SigningKey,
    pub address: Address,
}

/// A payment before it is signed.
#[derive(Clone)]
pub struct Draft {
    pub domain: Domain,
    pub authorization: Authorization,
    /// The entry that it takes: v2's, or v1's.
    pub entry: Value,
    /// `resource` of the offer, in v2.
    pub resource: Value,
    pub version: u8,
}

impl Wallet {
    pub fn new() -> Wallet {
        let seed = keccak256(&[b"wallet", &NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes()]);
        let key = SigningKey::from_slice(&seed).unwrap();
        let address = ecdsa::address_of(key.verifying_key());
        Wallet { key, address }
    }

    /// The offer of v2 for a path, ready to be signed.
    pub fn draft(&self, gateway: SocketAddr, path: &str) -> Draft {
        self.draft_of(&get(gateway, path))
    }

    pub fn draft_of(&self, offer: &Answer) -> Draft {
        assert_eq!(offer.status, 402, "{offer:?}");
        self.draft_from(&field_offer(offer))
    }

    /// The offer of v2 in x402's PaymentRequired, ready to be signed.
    pub fn draft_from(&self, field: &Value) -> Draft {
        let entries = field["accepts"].as_array().unwrap();
        let entry = entries.iter().find(|entry| entry["scheme"] == "exact").expect("no exact offer").clone();
        let network = Network::parse(entry["network"].as_str().unwrap()).unwrap();
        self.draft_for(entry, field["resource"].clone(), network, "amount", 2)
    }

    /// The offer of v1 for a path, ready to be signed.
    pub fn draft_v1(&self, gateway: SocketAddr, path: &str) -> Draft {
        let offer = get(gateway, path);
        assert_eq!(offer.status, 402, "{offer:?}");
        let entry = offer.json()["accepts"][0].clone();
        let network = Network::from_v1_name(entry["network"].as_str().unwrap()).unwrap();
        self.draft_for(entry, Value::Null, network, "maxAmountRequired", 1)
    }

    fn draft_for(&self, entry: Value, resource: Value, network: Network, amount: &str, version: u8) -> Draft {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let lifetime = entry["maxTimeoutSeconds"].as_u64().unwrap();
        let domain = Domain {
            name: text(&entry["extra"]["name"]),
            version: Some(text(&entry["extra"]["version"])),
            chain_id: network.evm_chain_id().unwrap(),
            verifying_contract: Address::parse(&text(&entry["asset"])).unwrap(),
        };
        let authorization = Authorization {
            from: self.address,
            to: Address::parse(&text(&entry["payTo"])).unwrap(),
            value: U256::parse(&text(&entry[amount])).unwrap(),
            valid_after: U256::from(0_u64),
            valid_before: U256::from(now() as u64 + lifetime),
            nonce: keccak256(&[b"nonce", &NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes()]),
        };
        Draft { domain, authorization, entry, resource, version }
    }

    /// The signed payload.
    pub fn sign(&self, draft: &Draft) -> Value {
        let Authorization { from, to, value, valid_after, valid_before, nonce } = draft.authorization.clone();
        let signature = ecdsa::sign(&self.key, &draft.authorization.digest(&draft.domain));
        let payload = json!({
            "signature": to_hex(&signature),
            "authorization": {"from": from.to_string(), "to": to.to_string(), "value": value.to_string(),
                "validAfter": valid_after.to_string(), "validBefore": valid_before.to_string(),
                "nonce": to_hex(&nonce)}
        });
        if draft.version == 1 {
            json!({"x402Version": 1, "scheme": draft.entry["scheme"], "network": draft.entry["network"],
                "payload": payload})
        } else {
            json!({"x402Version": 2, "payload": payload, "resource": draft.resource, "accepted": draft.entry})
        }
    }

    /// Takes the offer, signs it, sends it: the answer.
    pub fn buy(&self, gateway: SocketAddr, path: &str) -> Answer {
        let payload = self.sign(&self.draft(gateway, path));
        send(gateway, "GET", path, &payload)
    }
}

/// A request that carries this payload, in the field of its version.
pub fn head(gateway: SocketAddr, method: &str, path: &str, payload: &Value) -> String {
    let field = if payload["x402Version"] == 1 { "X-PAYMENT" } else { "PAYMENT-SIGNATURE" };
    let value = STANDARD.encode(payload.to_string());
    format!("{method} {path} HTTP/1.1\r\nHost: {gateway}\r\n{field}: {value}\r\nConnection: close\r\n\r\n")
}

/// Sends this payload: the answer.
pub fn send(gateway: SocketAddr, method: &str, path: &str, payload: &Value) -> Answer {
    exchange(gateway, head(gateway, method, path, payload))
}

/// The same, again while the payment is in flight: what ended just now is told once it is on disk.
pub fn send_until_told(gateway: SocketAddr, path: &str, payload: &Value) -> Answer {
    loop {
        let answer = send(gateway, "GET", path, payload);
        if answer.reason() != "payment_in_flight" {
            return answer;
        }
        std::thread::yield_now();
    }
}

/// The payment response of either version.
pub fn receipt(answer: &Answer) -> Option<Value> {
    let field = answer.header("payment-response").or_else(|| answer.header("x-payment-response"))?;
    Some(serde_json::from_slice(&STANDARD.decode(field).unwrap()).unwrap())
}

/// A gateway before `origin` that sells `/paid/*` for 0.01 USDC through `facilitator`; `more` stands in its route.
pub fn token_shop(origin: &Origin, facilitator: &Facilitator, more: &str) -> Gateway {
    Gateway::start(&token_shop_toml(origin, facilitator, more))
}

/// The configuration of [`token_shop`].
pub fn token_shop_toml(origin: &Origin, facilitator: &Facilitator, more: &str) -> String {
    format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
cores = 2
drain_seconds = 2
[origin]
url = "http://{origin}"
[facilitators.ours]
url = "{facilitator}"
[[exact.assets]]
network = "base-sepolia"
pay_to = "{PAY_TO}"
[[routes]]
path = "/paid/*"
price = "0.01 USD"
accept = ["exact"]
{more}"#,
        origin = origin.addr,
        facilitator = facilitator.url(),
    )
}
