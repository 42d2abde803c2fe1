//! What is true on a chain, whatever a facilitator says of it, and the postings that are held against it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rusqlite::Connection as Sql;
use serde_json::Value;
use tollgate::payment::key::PaymentKey;
use tollgate::wire::evm::address::Address;
use tollgate::wire::x402::network::Network;

use super::Random;
use super::facilitator::{Behaviour, Call, Facilitator};
use super::wallet::{Draft, USDC, Wallet};

/// What is true on the chain, and how the facilitator misbehaves.
pub struct Chain {
    random: Random,
    /// From now on all goes well.
    pub calm: bool,
    /// Transfers by nonce, what they moved; never more than one each, for the token sees to it.
    moved: HashMap<String, i64>,
}

impl Chain {
    pub fn new(random: Random) -> Chain {
        Chain { random, calm: false, moved: HashMap::new() }
    }

    /// The facilitator does what the chain's dice say.
    pub fn rules(chain: &Arc<Mutex<Chain>>, facilitator: &Facilitator) {
        let truth = chain.clone();
        facilitator.rule(move |call| match call.path.as_str() {
            "/settle" => truth.lock().unwrap().settle(call),
            "/verify" => truth.lock().unwrap().verify(),
            _ => Behaviour::Good,
        });
    }

    /// What an authorisation moved, if it did.
    pub fn moved(&self, nonce: &str) -> Option<i64> {
        self.moved.get(nonce).copied()
    }

    /// How often it moved money.
    pub fn moves(&self, nonce: &str) -> u32 {
        u32::from(self.moved(nonce).is_some())
    }

    fn settle(&mut self, call: &Call) -> Behaviour {
        let nonce = nonce_of(&call.body["paymentPayload"]);
        let amount = call.body["paymentRequirements"]["amount"].as_str().unwrap().parse().unwrap();
        let dice = if self.calm { 0 } else { self.random.below(10) };
        if self.moved.contains_key(&nonce) {
            // Some look the first transaction up, some only see that the nonce is gone.
            return match dice {
                8 => Behaviour::Refused("invalid_exact_evm_nonce_already_used"),
                9 => Behaviour::Reset,
                _ => Behaviour::Good,
            };
        }
        match dice {
            0..=3 => {
                self.moved.insert(nonce, amount);
                Behaviour::Good
            }
            // It moves, and nobody hears of it.
            4 => {
                self.moved.insert(nonce, amount);
                Behaviour::Reset
            }
            5 => {
                self.moved.insert(nonce, amount);
                Behaviour::Pending(500)
            }
            6 => [Behaviour::Reset, Behaviour::Garbage][self.random.below(2)].clone(),
            7 => Behaviour::Status(502),
            8 => {
                // A refusal that hides a transfer.
                self.moved.insert(nonce, amount);
                Behaviour::Refused("settle_exact_node_failure")
            }
            _ => Behaviour::Refused("insufficient_funds"),
        }
    }

    fn verify(&mut self) -> Behaviour {
        match if self.calm { 0 } else { self.random.below(8) } {
            6 => Behaviour::Invalid("insufficient_funds"),
            7 => Behaviour::Reset,
            _ => Behaviour::Good,
        }
    }
}

/// What the chain tells payments apart by.
pub fn nonce_of(payload: &Value) -> String {
    let kinds = ["authorization", "permit2Authorization"].into_iter();
    let nonce = kinds.filter_map(|kind| payload["payload"][kind]["nonce"].as_str()).next();
    nonce.unwrap().to_owned()
}

/// Postings by kind and payment, how many and how much.
pub struct Postings {
    sums: BTreeMap<(i64, String), (i64, i64)>,
    /// How many claims are open.
    pub open: i64,
}

impl Postings {
    pub fn of(dir: &Path) -> Postings {
        let sql = Sql::open(dir.join("tollgate.sqlite")).unwrap();
        let mut rows = sql.prepare("SELECT kind, lower(hex(substr(key, 2, 17))), amount FROM entries").unwrap();
        let mut found = BTreeMap::new();
        for row in rows.query_map((), |row| Ok(((row.get(0)?, row.get(1)?), row.get::<_, i64>(2)?))).unwrap() {
            let (key, amount) = row.unwrap();
            let sums: &mut (i64, i64) = found.entry(key).or_default();
            *sums = (sums.0 + 1, sums.1 + amount);
        }
        let open = sql.query_row("SELECT count(*) FROM claims", (), |row| row.get(0)).unwrap();
        Postings { sums: found, open }
    }

    /// How many postings of a kind a payment has.
    pub fn count(&self, kind: i64, key: &str) -> i64 {
        self.sum(kind, key).0
    }

    /// How many, and their amounts.
    pub fn sum(&self, kind: i64, key: &str) -> (i64, i64) {
        self.sums.get(&(kind, key.to_owned())).copied().unwrap_or_default()
    }
}

/// The payment key of a transfer of USDC, hex.
pub fn key_of_transfer(wallet: &Wallet, draft: &Draft) -> String {
    let network = Network::parse("eip155:84532").unwrap();
    let token = Address::parse(USDC).unwrap();
    PaymentKey::from_eip3009(&network, &token, &wallet.address, &draft.authorization.nonce).to_string()
}
