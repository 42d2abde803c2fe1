//! The layer with a wallet, over a client that answers from a script.

use serde_json::Value;

use super::*;
use crate::agent::{Means, Wallet};
use crate::wire::evm::ecdsa;
use crate::wire::x402::{Version, payload::Payload};

fn wallet() -> Wallet {
    Wallet::new(ecdsa::SigningKey::from_slice(&[7; 32]).unwrap())
}

fn token_offer(amount: &str, more: &[Value]) -> Answer {
    let entry = json!({"scheme": "exact", "network": "eip155:84532", "amount": amount,
        "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "payTo": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C", "maxTimeoutSeconds": 60,
        "extra": {"name": "USDC", "version": "2"}});
    let accepts = [&[entry], more].concat();
    let field = json!({"x402Version": 2, "resource": {"url": "http://shop.example/p?q=1"}, "accepts": accepts});
    let field = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, field.to_string());
    answer(402, &[("payment-required", &field), ("tollgate-reason", "payment_required")], "{}")
}

impl Script {
    fn transfers(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let field = |r: &Request<String>| Some(r.headers().get("payment-signature")?.to_str().unwrap().to_owned());
        asked.iter().filter_map(field).collect()
    }

    fn send_with_wallet(&self) -> Result<Response<Full<Bytes>>, PayError<String>> {
        self.send(|layer| layer.with(wallet()))
    }
}

#[test]
fn a_transfer_is_signed_as_it_was_offered() {
    let script = Script::of([token_offer("10000", &[]), answer(200, &[], "bought")]);
    assert_eq!(script.send_with_wallet().unwrap().status(), 200);
    let payload = Payload::decode(script.transfers()[0].as_bytes(), Version::V2).unwrap();
    assert_eq!(payload.accepted.as_ref().unwrap().amount, "10000");
    assert_eq!(payload.resource_url.as_deref(), Some("http://shop.example/p?q=1"));
    assert_eq!(payload.raw["payload"]["authorization"]["validAfter"], "0");
    assert_eq!(payload.raw["payload"]["authorization"]["validBefore"], "1700000060");
    // A wallet signs no requests: nothing is said about that.
    assert!(script.asked.lock().unwrap().iter().all(|r| !r.headers().contains_key("accept")));
}

#[test]
fn the_same_transfer_goes_out_again_and_never_another_one() {
    for reason in ["settlement_pending", "payment_in_flight", "facilitator_unavailable", "ledger_unavailable"] {
        let script = Script::of([token_offer("10000", &[]), busy(reason, "2"), lost(), answer(200, &[], "")]);
        assert_eq!(script.send_with_wallet().unwrap().status(), 200);
        let transfers = script.transfers();
        assert_eq!((transfers.len(), &transfers[0], &transfers[1]), (3, &transfers[1], &transfers[2]));
    }
    // 60 s of lifetime, less 6: after two waits of 25 s a third would come too late.
    let busy = || busy("settlement_pending", "25");
    let script = Script::of([token_offer("10000", &[]), busy(), busy(), busy()]);
    assert_eq!(script.send_with_wallet().unwrap().status(), 503);
    let transfers = script.transfers();
    assert!(transfers.len() == 3 && transfers.iter().all(|transfer| *transfer == transfers[0]));
    // What is final, and what another payment holds up, is not sent again.
    for answer in
        [answer(409, &[("tollgate-reason", "payment_already_used")], ""), self::busy("payment_unresolved", "1")]
    {
        let script = Script::of([token_offer("10000", &[]), answer]);
        script.send_with_wallet().unwrap();
        assert_eq!(script.transfers().len(), 1);
    }
}

#[test]
fn the_budget_holds_for_tokens_by_their_worth() {
    let script = Script::of([token_offer("100001", &[])]);
    let error = script.send_with_wallet().unwrap_err().to_string();
    assert_eq!((error.as_str(), script.calls()), ("the offer asks 0.100001 USD, the budget is 0.10 USD", 1));
}

#[test]
fn means_decide_which_offer_is_the_first() {
    let deferred = json!({"scheme": "deferred", "network": "n", "amount": "1", "asset": "USD", "extra": {"id": "one"}});
    let offers = || token_offer("10000", std::slice::from_ref(&deferred));
    let agent = || Agent::new(AgentUrl::parse("https://signer.example.com").unwrap(), SigningKey::from_bytes(&[7; 32]));
    for (means, transfers) in [(Means::Agent(agent()), 0), (wallet().into(), 1), (Means::Both(agent(), wallet()), 1)] {
        let script = Script::of([offers(), answer(200, &[], "")]);
        script.send(|layer| layer.with(means)).unwrap();
        assert_eq!((script.transfers().len(), script.paid_ids().len()), (transfers, 1 - transfers));
    }
    let script = Script::of([token_offer("10000", &[])]);
    let error = script.send(|layer| layer).unwrap_err().to_string();
    assert_eq!(error, "the 402 takes only `exact`: `deferred` needs an agent's key, `exact` a wallet");
}

#[test]
fn an_agent_says_that_it_reads_deferred_unless_the_request_says_what_it_accepts() {
    let script = Script::of([answer(200, &[], "")]);
    script.send(|layer| layer).unwrap();
    assert_eq!(script.asked.lock().unwrap()[0].headers()["accept"], "*/*, application/json;scheme=deferred;q=0.1");
    let mut headers = HeaderMap::from_iter([(header::ACCEPT, "text/html".parse().unwrap())]);
    Means::from(wallet()).announce(&mut headers);
    assert_eq!(headers.len(), 1);
    assert_eq!(headers["accept"], "text/html");
}

#[test]
fn a_server_that_speaks_v1_alone_is_paid_in_v1() {
    let entry = json!({"scheme": "exact", "network": "base-sepolia", "maxAmountRequired": "10000",
        "resource": "http://shop.example/p?q=1", "description": "", "mimeType": "",
        "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "payTo": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C", "maxTimeoutSeconds": 60,
        "extra": {"name": "USDC", "version": "2"}});
    let offer = answer(402, &[], &json!({"x402Version": 1, "accepts": [entry]}).to_string());
    let script = Script::of([offer, answer(200, &[], "")]);
    assert_eq!(script.send_with_wallet().unwrap().status(), 200);
    let asked = script.asked.lock().unwrap();
    let payload = Payload::decode(asked[1].headers()["x-payment"].as_bytes(), Version::V1).unwrap();
    assert_eq!((payload.scheme.as_str(), payload.network.as_str()), ("exact", "base-sepolia"));
    assert!(!asked[1].headers().contains_key("payment-signature"));
}
