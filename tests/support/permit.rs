//! Payments by Permit2, as the official clients make them for `upto`.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tollgate::wire::evm::address::Address;
use tollgate::wire::evm::ecdsa;
use tollgate::wire::evm::permit2::{PermitAuthorization, UPTO_PROXY, Witness};
use tollgate::wire::evm::to_hex;
use tollgate::wire::evm::u256::U256;
use tollgate::wire::x402::network::Network;

use super::agent::{field_offer, now};
use super::client::{Answer, get};
use super::facilitator::Facilitator;
use super::gateway::Gateway;
use super::origin::Origin;
use super::wallet::{Wallet, send, token_shop_toml};

/// The account from which the facilitator settles `upto`.
pub const SETTLER: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

/// A payment before it is signed.
#[derive(Clone)]
pub struct Permit {
    pub authorization: PermitAuthorization,
    pub entry: Value,
    pub resource: Value,
}

impl Wallet {
    /// The `upto` offer for a path, ready to be signed.
    pub fn permit(&self, gateway: SocketAddr, path: &str) -> Permit {
        self.permit_of(&get(gateway, path))
    }

    pub fn permit_of(&self, offer: &Answer) -> Permit {
        assert_eq!(offer.status, 402, "{offer:?}");
        let field = field_offer(offer);
        let entries = field["accepts"].as_array().unwrap();
        let entry = entries.iter().find(|entry| entry["scheme"] == "upto").expect("no upto offer").clone();
        let address = |value: &Value| Address::parse(value.as_str().unwrap()).unwrap();
        let authorization = PermitAuthorization {
            from: self.address,
            token: address(&entry["asset"]),
            amount: U256::parse(entry["amount"].as_str().unwrap()).unwrap(),
            spender: UPTO_PROXY,
            nonce: U256::from(super::wallet::fresh()),
            deadline: U256::from(now() as u64 + entry["maxTimeoutSeconds"].as_u64().unwrap()),
            witness: Witness {
                to: address(&entry["payTo"]),
                facilitator: Some(address(&entry["extra"]["facilitatorAddress"])),
                valid_after: U256::from(0_u64),
            },
        };
        Permit { authorization, entry, resource: field["resource"].clone() }
    }

    /// The signed payload.
    pub fn sign_permit(&self, permit: &Permit) -> Value {
        let network = Network::parse(permit.entry["network"].as_str().unwrap()).unwrap();
        let authorization = &permit.authorization;
        let signature = ecdsa::sign(&self.key, &authorization.digest(network.evm_chain_id().unwrap()));
        let mut witness = json!({
            "to": authorization.witness.to.to_string(),
            "validAfter": authorization.witness.valid_after.to_string(),
        });
        if let Some(facilitator) = &authorization.witness.facilitator {
            witness["facilitator"] = json!(facilitator.to_string());
        }
        let permit2 = json!({
            "from": authorization.from.to_string(),
            "permitted": {"token": authorization.token.to_string(), "amount": authorization.amount.to_string()},
            "spender": authorization.spender.to_string(),
            "nonce": authorization.nonce.to_string(),
            "deadline": authorization.deadline.to_string(),
            "witness": witness,
        });
        json!({
            "x402Version": 2, "payload": {"signature": to_hex(&signature), "permit2Authorization": permit2},
            "resource": permit.resource, "accepted": permit.entry,
        })
    }

    /// Takes the `upto` offer, signs it, sends it: the answer.
    pub fn buy_upto(&self, gateway: SocketAddr, path: &str) -> Answer {
        let payload = self.sign_permit(&self.permit(gateway, path));
        send(gateway, "GET", path, &payload)
    }
}

/// The configuration of a gateway that sells `/paid/*` for at most 0.01 USDC.
pub fn upto_shop_toml(origin: &Origin, facilitator: &Facilitator, more: &str) -> String {
    token_shop_toml(origin, facilitator, more)
        .replace("accept = [\"exact\"]", "accept = [\"upto\"]")
        .replace("pay_to =", &format!("facilitator_address = \"{SETTLER}\"\npay_to ="))
}

/// Such a gateway; the facilitator says that it takes `upto`.
pub fn upto_shop(origin: &Origin, facilitator: &Facilitator, more: &str) -> Gateway {
    Gateway::start(&upto_shop_toml(origin, facilitator, more))
}
