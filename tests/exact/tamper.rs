//! Payments with one character changed: whatever the payer did not sign and the gateway did not offer is refused, before
//! the origin, a facilitator's `/settle` or the books hear of it. What may differ by definition is written down here a
//! second time, apart from the gateway's own reading.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};
use tollgate::payment::key::PaymentKey;
use tollgate::wire::evm::address::Address;
use tollgate::wire::evm::permit2::PERMIT2;
use tollgate::wire::evm::u256::U256;
use tollgate::wire::x402::network::Network;

use crate::support::books::Books;
use crate::support::client::Connection;
use crate::support::facilitator::{Behaviour, Facilitator};
use crate::support::permit::upto_shop;
use crate::support::wallet::{USDC, Wallet, receipt, send, token_shop};
use crate::support::*;

pub const SOLD: &str = "description = \"An article\"\nmime_type = \"text/plain\"\n";
/// What the facilitator says to all that it is asked about while things are bent.
const ASKED: &str = "insufficient_funds";

#[test]
fn any_character_of_a_v2_payment() {
    every_character(2, token_shop, |wallet, addr| wallet.sign(&wallet.draft(addr, "/paid/a")));
}

#[test]
fn any_character_of_an_upto_payment() {
    every_character(2, upto_shop, |wallet, addr| wallet.sign_permit(&wallet.permit(addr, "/paid/a")));
}

#[test]
fn any_character_of_a_v1_payment() {
    every_character(1, token_shop, |wallet, addr| wallet.sign(&wallet.draft_v1(addr, "/paid/a")));
}

fn every_character(
    version: u8,
    shop: fn(&Origin, &Facilitator, &str) -> Gateway,
    payment: impl Fn(&Wallet, SocketAddr) -> Value,
) {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = shop(&origin, &facilitator, SOLD);
    facilitator.always("/verify", Behaviour::Invalid(ASKED));
    let payload = payment(&wallet, gateway.addr);
    let text = payload.to_string();
    let bent = bent(text.as_bytes());
    assert!(bent.len() > text.len(), "each character at least once");
    let same = |bent: &Vec<u8>| serde_json::from_slice(bent).is_ok_and(|bent| same_payment(&payload, &bent));
    let (harmless, bent): (Vec<_>, Vec<_>) = bent.into_iter().partition(same);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut line = Line::open(gateway.addr);
                while let Some(bent) = bent.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let answer = line.send(version, &STANDARD.encode(bent));
                    let shown = String::from_utf8_lossy(bent);
                    assert!(matches!(answer.status, 400 | 402), "{shown}\n{answer:?}");
                    assert_eq!(receipt(&answer), None, "{shown}");
                    let expected =
                        ["invalid_payment", "payment_refused", "unknown_offer", "unsupported_scheme", "other_resource"];
                    assert!(expected.contains(&answer.reason()), "{shown}\n{}", answer.text());
                    assert_ne!(answer.json()["error"], ASKED, "{shown}");
                }
            });
        }
    });
    assert_eq!(facilitator.count("/verify"), 0, "asked about what does not hold");
    // One after the other: they are one payment.
    let mut line = Line::open(gateway.addr);
    for bent in &harmless {
        let answer = line.send(version, &STANDARD.encode(bent));
        let shown = String::from_utf8_lossy(bent);
        assert_eq!((answer.status, answer.reason()), (402, "payment_refused"), "{shown}\n{}", answer.text());
        assert_eq!(answer.json()["error"], ASKED, "{shown}");
    }
    // Most of an address, a nonce and a signature are digits that have no case.
    assert!((50..600).contains(&harmless.len()), "{}", harmless.len());
    assert_eq!(facilitator.count("/verify"), harmless.len());
    assert_eq!((origin.calls(), facilitator.count("/settle")), (0, 0));
    // All that did not spend it.
    facilitator.rule(|_| Behaviour::Good);
    let step = harmless.len() / 4;
    let spelt: Value = serde_json::from_slice(&harmless[step]).unwrap();
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &spelt).status, 200);
    // However it is spelt, it is the same payment, and spent.
    let bent = harmless.iter().step_by(step).map(|bent| serde_json::from_slice(bent).unwrap());
    for again in bent.chain([payload.clone()]) {
        let answer = send(gateway.addr, "GET", "/paid/a", &again);
        assert_eq!((answer.status, answer.reason()), (409, "payment_already_used"), "{again}");
    }
    assert_eq!((origin.calls(), facilitator.count("/settle")), (1, 1));
    let (_, dir) = gateway.stop();
    let books = Books::read(dir.path());
    assert_eq!((books.charged(), books.intents), (1, 1));
    let paid = match payload["payload"]["authorization"]["nonce"].as_str() {
        Some(nonce) => key(&wallet, nonce),
        None => permit_key(&wallet, payload["payload"]["permit2Authorization"]["nonce"].as_str().unwrap()),
    };
    assert!(books.captures.contains_key(&paid), "{books:?}");
}

/// The key of a payment in USDC on the test network.
pub fn key(wallet: &Wallet, nonce: &str) -> String {
    let nonce = tollgate::wire::evm::from_hex(nonce).unwrap().try_into().unwrap();
    let (network, asset) = (Network::parse("eip155:84532").unwrap(), Address::parse(USDC).unwrap());
    PaymentKey::from_eip3009(&network, &asset, &wallet.address, &nonce).to_string()
}

/// The key of a payment by Permit2.
fn permit_key(wallet: &Wallet, nonce: &str) -> String {
    let (network, nonce) = (Network::parse("eip155:84532").unwrap(), U256::parse(nonce).unwrap());
    PaymentKey::from_permit2(&network, &PERMIT2, &wallet.address, nonce).to_string()
}

/// Every position with its neighbour in the alphabet, the letters also in the other case; every 16th also as a byte that is
/// no UTF-8, and as a space.
fn bent(text: &[u8]) -> Vec<Vec<u8>> {
    let with = |i: usize, byte: u8| {
        let mut bent = text.to_vec();
        bent[i] = byte;
        bent
    };
    let mut all = Vec::new();
    for (i, byte) in text.iter().copied().enumerate() {
        all.push(with(i, byte ^ 1));
        if byte.is_ascii_alphabetic() {
            all.push(with(i, byte ^ 0x20));
        }
        if i % 16 == 0 {
            all.extend([with(i, byte | 0x80), with(i, b' ')]);
        }
    }
    all
}

/// A connection that is opened again when the gateway closes it.
struct Line {
    gateway: SocketAddr,
    connection: Connection,
}

impl Line {
    fn open(gateway: SocketAddr) -> Line {
        Line { gateway, connection: Connection::open(gateway) }
    }

    fn send(&mut self, version: u8, value: &str) -> Answer {
        let field = if version == 1 { "X-PAYMENT" } else { "PAYMENT-SIGNATURE" };
        let head = format!("GET /paid/a HTTP/1.1\r\nHost: {}\r\n{field}: {value}\r\n\r\n", self.gateway);
        let answer = self.connection.send(&head).unwrap_or_else(|| panic!("no answer to {value}"));
        if answer.header("connection") == Some("close") {
            self.connection = Connection::open(self.gateway);
        }
        answer
    }
}

/// Whether a bent payload still is this payment: what is signed and what is compared is equal, hexadecimal in any case.
fn same_payment(payload: &Value, bent: &Value) -> bool {
    let (Some(payload), Some(bent)) = (decisive(payload, payload), decisive(bent, payload)) else { return false };
    payload == bent
}

/// What of a payload decides; members that nobody offered or signed are left out.
fn decisive(payload: &Value, original: &Value) -> Option<Value> {
    let mut decisive = only(payload, &["x402Version", "scheme", "network", "payload", "accepted"])?;
    let mut signed = only(&payload["payload"], &["signature", "authorization", "permit2Authorization"])?;
    if original["payload"].get("authorization").is_some() {
        signed.remove("permit2Authorization");
        let members = ["from", "to", "value", "validAfter", "validBefore", "nonce"];
        let mut authorization = only(signed.get("authorization")?, &members)?;
        ["from", "to", "nonce"].iter().try_for_each(|name| fold(&mut authorization, name, true))?;
        signed.insert("authorization".into(), Value::Object(authorization));
    } else {
        signed.remove("authorization");
        let members = ["from", "permitted", "spender", "nonce", "deadline", "witness"];
        let mut authorization = only(signed.get("permit2Authorization")?, &members)?;
        ["from", "spender"].iter().try_for_each(|name| fold(&mut authorization, name, true))?;
        for (part, members, addresses) in [
            ("permitted", &["token", "amount"][..], &["token"][..]),
            ("witness", &["to", "facilitator", "validAfter"], &["to", "facilitator"]),
        ] {
            let mut inner = only(authorization.get(part)?, members)?;
            addresses.iter().try_for_each(|name| fold(&mut inner, name, true))?;
            authorization.insert(part.into(), Value::Object(inner));
        }
        signed.insert("permit2Authorization".into(), Value::Object(authorization));
    }
    fold(&mut signed, "signature", true)?;
    decisive.insert("payload".into(), Value::Object(signed));
    if original["x402Version"] == 2 {
        // Echoed nowhere else, so v1's names are just unknown members.
        decisive.remove("scheme");
        decisive.remove("network");
        let members = ["scheme", "network", "amount", "asset", "payTo", "maxTimeoutSeconds", "extra"];
        let mut accepted = only(decisive.get("accepted")?, &members)?;
        let offered: Vec<&str> = original["accepted"]["extra"].as_object()?.keys().map(String::as_str).collect();
        let extra = only(accepted.get("extra")?, &offered)?;
        accepted.insert("extra".into(), Value::Object(extra));
        ["asset", "payTo"].iter().try_for_each(|name| fold(&mut accepted, name, false))?;
        decisive.insert("accepted".into(), Value::Object(accepted));
        // A hint, which must be right where it is given.
        let url = payload.pointer("/resource/url").or_else(|| original.pointer("/resource/url"))?;
        decisive.insert("resource".into(), url.clone());
    }
    Some(Value::Object(decisive))
}

fn only(value: &Value, names: &[&str]) -> Option<Map<String, Value>> {
    let members = value.as_object()?.iter().filter(|(name, _)| names.contains(&name.as_str()));
    Some(members.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// Takes the case from hexadecimal. What is decoded begins with `0x` in this case only.
fn fold(members: &mut Map<String, Value>, name: &str, decoded: bool) -> Option<()> {
    let text = members.get(name)?.as_str()?;
    if decoded && !text.starts_with("0x") {
        return None;
    }
    let text = text.to_ascii_lowercase();
    members.insert(name.into(), text.into());
    Some(())
}
