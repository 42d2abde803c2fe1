//! What the chain itself says of an EIP-3009 authorisation: asked of a node by JSON-RPC, at the last block that can't be
//! taken back (`finalized`).

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::http::{Ask, Http, UrlError};
use crate::wire::evm::address::Address;
use crate::wire::evm::eip712::{keccak256, word};
use crate::wire::evm::{from_hex, to_hex};

/// For one question.
const PATIENCE: Duration = Duration::from_secs(10);
/// How far back a transfer is looked for; many nodes answer no longer range.
const BLOCKS: u64 = 9_000;

/// A node of an Ethereum chain.
#[derive(Debug)]
pub struct Node(Http);

/// A transfer that was authorised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorized {
    /// The token.
    pub token: Address,
    /// Who pays.
    pub from: Address,
    /// Who is paid.
    pub to: Address,
    /// How much, in the token's smallest unit.
    pub value: u128,
    /// Of the authorisation.
    pub nonce: [u8; 32],
    /// When it ends, Unix seconds.
    pub valid_before_s: u64,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It moved the money, in this transaction.
    Moved(String),
    /// It did not, and never will: its time is over.
    Expired,
    /// It still may.
    Open,
    /// Its nonce is used, but not by a transfer that was found: cancelled, or long ago.
    Unclear,
}

impl Node {
    /// A node at `url`, `https://mainnet.base.org`.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn new(url: &str) -> Result<Node, UrlError> {
        Http::new(url, None, None).map(Node)
    }

    /// Looks an authorisation up.
    ///
    /// # Errors
    /// Why nothing was learned.
    pub async fn fate(&self, it: &Authorized) -> Result<Fate, String> {
        let block = self.call("eth_getBlockByNumber", json!(["finalized", false])).await?;
        let number = quantity(&block["number"]).ok_or("no block is final yet")?;
        let timestamp = quantity(&block["timestamp"]).ok_or("the block has no time")?;
        let state = [&selector("authorizationState(address,bytes32)")[..], &word(&it.from), &it.nonce].concat();
        let asked = json!([{"to": it.token.to_string(), "data": to_hex(&state)}, hex(number)]);
        let used = self.call("eth_call", asked).await?;
        let used =
            used.as_str().and_then(from_hex).filter(|bytes| bytes.len() == 32).ok_or("no answer of the token")?;
        if used.iter().all(|byte| *byte == 0) {
            return Ok(if timestamp >= it.valid_before_s { Fate::Expired } else { Fate::Open });
        }
        Ok(self.transfer(it, number).await?.map_or(Fate::Unclear, Fate::Moved))
    }

    /// The transaction that used the authorisation and moved the money.
    async fn transfer(&self, it: &Authorized, number: u64) -> Result<Option<String>, String> {
        let used = to_hex(&keccak256(&[b"AuthorizationUsed(address,bytes32)"]));
        let filter = json!([{"address": it.token.to_string(), "topics": [used, to_hex(&word(&it.from)), to_hex(&it.nonce)],
            "fromBlock": hex(number.saturating_sub(BLOCKS)), "toBlock": hex(number)}]);
        let logs = self.call("eth_getLogs", filter).await?;
        let Some(transaction) = logs[0]["transactionHash"].as_str() else { return Ok(None) };
        let receipt = self.call("eth_getTransactionReceipt", json!([transaction])).await?;
        let moved = |log: &Value| {
            let topic = |i: usize| log["topics"][i].as_str().and_then(from_hex);
            let is = |i: usize, expected: &[u8]| topic(i).as_deref() == Some(expected);
            log["address"].as_str().and_then(|a| Address::parse(a).ok()) == Some(it.token)
                && is(0, &keccak256(&[b"Transfer(address,address,uint256)"]))
                && is(1, &word(&it.from))
                && is(2, &word(&it.to))
                && log["data"].as_str().and_then(from_hex).and_then(|data| amount(&data)) == Some(it.value)
        };
        let found = receipt["status"] == "0x1" && receipt["logs"].as_array().is_some_and(|logs| logs.iter().any(moved));
        Ok(found.then(|| transaction.to_owned()))
    }

    async fn call(&self, method: &str, params: Value) -> Result<Value, String> {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let ask = Ask {
            path: "",
            body: Some(Bytes::from(body)),
            repeatable: true,
            connect: PATIENCE,
            deadline: Instant::now() + PATIENCE,
        };
        let answer = self.0.ask(ask).await.map_err(|failed| format!("{method}: {failed:?}"))?;
        let json: Value = serde_json::from_slice(&answer.body).map_err(|e| format!("{method}: no JSON: {e}"))?;
        match json.get("result") {
            Some(result) if json.get("error").is_none_or(Value::is_null) => Ok(result.clone()),
            _ => Err(format!("{method}: {}", json["error"]["message"].as_str().unwrap_or("no result"))),
        }
    }
}

fn selector(signature: &str) -> [u8; 4] {
    let [a, b, c, d, ..] = keccak256(&[signature.as_bytes()]);
    [a, b, c, d]
}

fn hex(number: u64) -> String {
    format!("{number:#x}")
}

fn quantity(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}

/// A word that fits into 128 bits.
fn amount(data: &[u8]) -> Option<u128> {
    let (high, low) = data.split_at_checked(16)?;
    let low: [u8; 16] = low.try_into().ok()?;
    high.iter().all(|byte| *byte == 0).then(|| u128::from_be_bytes(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_and_quantities_are_ethereums() {
        assert_eq!(to_hex(&selector("authorizationState(address,bytes32)")), "0xe94a0102");
        assert_eq!((hex(26), quantity(&json!("0x1a")), quantity(&json!(26))), ("0x1a".to_owned(), Some(26), None));
        let mut data = [0; 32];
        data[31] = 7;
        assert_eq!(amount(&data), Some(7));
        data[0] = 1;
        assert_eq!((amount(&data), amount(&data[1..])), (None, None));
    }
}
