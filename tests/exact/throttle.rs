//! Payers whom only a facilitator can name are throttled for what they drop, as others are.

use std::io::Read as _;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::agent::field_offer;
use crate::support::client::{Connection, get};
use crate::support::facilitator::{Behaviour, Facilitator};
use crate::support::wallet::{Wallet, head, send, token_shop_toml};
use crate::support::*;

/// More than a payer may drop at once, with room for what is forgotten meanwhile.
const MANY: usize = 600;

/// Pays and leaves once the origin was asked, until the gateway has had enough of that payer.
fn drops_until_throttled(
    toml: impl FnOnce(&Origin) -> String,
    pay: impl Fn(&Gateway, usize) -> Value,
) -> (Gateway, usize) {
    let (told, asked) = channel();
    let told = Mutex::new(told);
    let origin = Origin::scripted(move |_, socket| {
        told.lock().unwrap().send(()).unwrap();
        // Until the gateway gives it up.
        let _ = socket.read(&mut [0]);
        told.lock().unwrap().send(()).unwrap();
        false
    });
    let gateway = Gateway::start(&toml(&origin));
    for i in 0..MANY {
        let mut connection = Connection::open(gateway.addr);
        connection.write(head(gateway.addr, "GET", "/paid/a", &pay(&gateway, i)));
        // Either the origin is asked, or there is an answer.
        while asked.try_recv().is_err() {
            connection.socket.set_nonblocking(true).unwrap();
            let answered = connection.socket.peek(&mut [0]).is_ok();
            connection.socket.set_nonblocking(false).unwrap();
            if answered {
                let answer = connection.read(false).unwrap();
                assert_eq!((answer.status, answer.reason()), (429, "too_many_claims"), "{answer:?}");
                assert!(answer.header("retry-after").is_some());
                return (gateway, i);
            }
            std::thread::yield_now();
        }
        drop(connection);
        asked.recv().unwrap();
    }
    panic!("{MANY} payments were dropped, and nobody minded");
}

/// A signature of a contract wallet: only the facilitator can tell.
fn by_contract(wallet: &Wallet, gateway: &Gateway) -> Value {
    let mut payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
    payload["payload"]["signature"] = format!("0x{}", "6492".repeat(100)).into();
    payload
}

#[test]
fn a_contract_wallet_that_drops_its_payments_is_throttled_and_no_other() {
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let toml = |origin: &Origin| token_shop_toml(origin, &facilitator, "");
    let (gateway, drops) = drops_until_throttled(toml, |gateway, _| by_contract(&wallet, gateway));
    assert!(drops >= 100, "{drops}");
    let verified = facilitator.count("/verify");
    // Another one is asked about; refused, so that the origin need not answer.
    facilitator.next("/verify", Behaviour::Invalid("invalid_exact_evm_payload_signature"));
    let other = Wallet::new();
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &by_contract(&other, &gateway)).status, 402);
    assert_eq!(facilitator.count("/verify"), verified + 1);
}

/// What others say in somebody's name and a facilitator refuses is not his doing.
#[test]
fn nobody_is_throttled_for_what_others_say_in_his_name() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = Gateway::start(&token_shop_toml(&origin, &facilitator, ""));
    facilitator.always("/verify", Behaviour::Invalid("invalid_exact_evm_payload_signature"));
    for _ in 0..150 {
        assert_eq!(send(gateway.addr, "GET", "/paid/a", &by_contract(&wallet, &gateway)).status, 402);
    }
    facilitator.always("/verify", Behaviour::Good);
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &by_contract(&wallet, &gateway)).status, 200);
    assert_eq!(wallet.buy(gateway.addr, "/paid/a").status, 200);
}

const SOLANA: &str = "EwWqGE4ZFKLofuestmU4LDdK7XM1N4ALgdZccwYugwGd";

/// A transaction of one account with one instruction, as unlike others as its number.
fn on_solana(gateway: &Gateway, number: usize) -> Value {
    let offer = field_offer(&get(gateway.addr, "/paid/a"));
    let mut account = [8; 32];
    account[..8].copy_from_slice(&(number as u64).to_be_bytes());
    let message = [&[1, 0, 1, 1][..], &account, &[9; 32], &[1, 0, 1, 0, 2, 5, 6]].concat();
    let transaction = [&[1][..], &[7; 64], &message].concat();
    json!({"x402Version": 2, "accepted": offer["accepts"][0], "resource": offer["resource"],
        "payload": {"transaction": STANDARD.encode(transaction)}})
}

#[test]
fn a_payer_on_solana_is_throttled_by_the_name_that_the_facilitator_gives() {
    let facilitator = Facilitator::start();
    let payer = std::sync::Arc::new(Mutex::new("first".to_owned()));
    let said = payer.clone();
    facilitator.rule(move |call| match call.path.as_str() {
        "/supported" => Behaviour::Json(
            200,
            json!({"kinds": [{"x402Version": 2, "scheme": "exact",
                "network": "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1", "extra": {"feePayer": SOLANA}}]}),
        ),
        "/verify" => Behaviour::Json(200, json!({"isValid": true, "payer": *said.lock().unwrap()})),
        _ => Behaviour::Good,
    });
    let toml = |origin: &Origin| {
        let toml = token_shop_toml(origin, &facilitator, "").replace("base-sepolia", "solana-devnet");
        let start = toml.find("pay_to = ").unwrap();
        let end = start + toml[start..].find('\n').unwrap();
        format!("{}pay_to = \"{SOLANA}\"\nfee_payer = \"{SOLANA}\"{}", &toml[..start], &toml[end..])
    };
    let (gateway, drops) = drops_until_throttled(toml, on_solana);
    assert!(drops >= 100, "{drops}");
    // Another one is not, and the origin is asked for him.
    *payer.lock().unwrap() = "second".to_owned();
    let mut connection = Connection::open(gateway.addr);
    connection.write(head(gateway.addr, "GET", "/paid/a", &on_solana(&gateway, MANY)));
    let answer = connection.read(false).unwrap();
    assert_ne!(answer.status, 429, "{answer:?}");
}
