//! Load of token payments, for `benches/compare/compare.sh`.
//!
//! Reads GATEWAY_URL (of a priced page, `http://127.0.0.1:PORT/paid/small`), REQUESTS, CONNECTIONS. Takes one offer of x402
//! v2, signs a transfer (EIP-3009) for each request, each with a nonce of its own; the rest is as in `paid_load.rs`.

mod load;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use load::Result;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tollgate::wire::evm::address::Address;
use tollgate::wire::evm::ecdsa::{self, SigningKey};
use tollgate::wire::evm::eip712::{Domain, keccak256};
use tollgate::wire::evm::eip3009::Authorization;
use tollgate::wire::evm::to_hex;
use tollgate::wire::evm::u256::U256;
use tollgate::wire::x402::network::Network;

fn main() -> Result<()> {
    let var = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let url = var("GATEWAY_URL")?;
    let rest = url.strip_prefix("http://").ok_or("GATEWAY_URL must begin with http://")?;
    let (authority, path) = rest.split_once('/').ok_or("GATEWAY_URL must have a path")?;
    let requests: usize = var("REQUESTS")?.parse()?;
    load::run(authority, prepare(authority, path, requests))
}

async fn prepare(authority: &str, path: &str, requests: usize) -> Result<Vec<Vec<u8>>> {
    let mut socket = TcpStream::connect(authority).await?;
    let ask = format!("GET /{path} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    let (status, head, _) = load::exchange(&mut socket, ask.as_bytes(), &mut Vec::new()).await?;
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let offer = fields.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("payment-required"));
    let (_, offer) = offer.ok_or(format!("expected an offer in PAYMENT-REQUIRED, got status {status}"))?;
    let offer: Value = serde_json::from_slice(&STANDARD.decode(offer.trim())?)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    (0..requests).map(|i| Ok(request(authority, path, &payment(&offer, now, i)?))).collect()
}

/// The payload of payment `i` for the first entry of an offer.
fn payment(offer: &Value, now: u64, i: usize) -> Result<Value> {
    let entry = &offer["accepts"][0];
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or("the offer lacks a member");
    let seed = keccak256(&[b"a wallet for measurements"]);
    let key = SigningKey::from_slice(&seed)?;
    let (from, run) = (ecdsa::address_of(key.verifying_key()), std::process::id());
    let domain = Domain {
        name: text(&entry["extra"]["name"])?,
        version: Some(text(&entry["extra"]["version"])?),
        chain_id: Network::parse(&text(&entry["network"])?)?.evm_chain_id().ok_or("no EVM network")?,
        verifying_contract: Address::parse(&text(&entry["asset"])?)?,
    };
    let authorization = Authorization {
        from,
        to: Address::parse(&text(&entry["payTo"])?)?,
        value: U256::parse(&text(&entry["amount"])?)?,
        valid_after: U256::from(0_u64),
        valid_before: U256::from(now + entry["maxTimeoutSeconds"].as_u64().ok_or("no time")?),
        nonce: keccak256(&[&now.to_be_bytes(), &run.to_be_bytes(), &i.to_be_bytes()]),
    };
    let signature = to_hex(&ecdsa::sign(&key, &authorization.digest(&domain)));
    let Authorization { to, value, valid_after, valid_before, nonce, .. } = authorization;
    Ok(json!({"x402Version": 2, "resource": offer["resource"], "accepted": entry, "payload": {"signature": signature,
        "authorization": {"from": from.to_string(), "to": to.to_string(), "value": value.to_string(),
            "validAfter": valid_after.to_string(), "validBefore": valid_before.to_string(), "nonce": to_hex(&nonce)}}}))
}

fn request(authority: &str, path: &str, payload: &Value) -> Vec<u8> {
    let payment = STANDARD.encode(payload.to_string());
    format!("GET /{path} HTTP/1.1\r\nHost: {authority}\r\nPAYMENT-SIGNATURE: {payment}\r\n\r\n").into_bytes()
}
