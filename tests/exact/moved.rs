//! Offers that were made before a restart, and what a changed configuration makes of them.

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::agent::field_offer;
use crate::support::facilitator::{Behaviour, Facilitator};
use crate::support::wallet::{Draft, PAY_TO, USDC, Wallet, head, send, token_shop_toml};
use crate::support::*;

const OTHER: &str = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";

/// A payment for an offer of this host. The port changes with each start, the host of an offer does not.
fn old(gateway: &Gateway, host: SocketAddr, path: &str, payload: &Value) -> Answer {
    exchange(gateway.addr, head(host, "GET", path, payload))
}

/// A gateway, an unpaid v2 payment and an unpaid v1 payment; then another gateway over its files with `change`.
fn restarted(
    change: impl FnOnce(String) -> String,
) -> (Origin, Facilitator, Wallet, Gateway, (SocketAddr, [Draft; 2])) {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let toml = token_shop_toml(&origin, &facilitator, "");
    let gateway = Gateway::start(&toml);
    let drafts = [wallet.draft(gateway.addr, "/paid/a"), wallet.draft_v1(gateway.addr, "/paid/b")];
    let host = gateway.addr;
    let gateway = Gateway::start_in(gateway.kill(), &change(toml));
    (origin, facilitator, wallet, gateway, (host, drafts))
}

fn settled(facilitator: &Facilitator) -> Vec<(Value, Value)> {
    let asked = |call: crate::support::facilitator::Call| {
        let asked = &call.body["paymentRequirements"];
        let amount = if asked["amount"].is_null() { &asked["maxAmountRequired"] } else { &asked["amount"] };
        (asked["payTo"].clone(), amount.clone())
    };
    facilitator.calls_of("/settle").into_iter().map(asked).collect()
}

#[test]
fn an_offer_outlives_a_restart_and_so_does_what_was_spent() {
    let (origin, facilitator, wallet, gateway, (host, [v2, v1])) = restarted(|toml| toml);
    let (v2, v1) = (wallet.sign(&v2), wallet.sign(&v1));
    assert_eq!(old(&gateway, host, "/paid/a", &v2).status, 200);
    assert_eq!(old(&gateway, host, "/paid/b", &v1).status, 200);
    let config = std::fs::read_to_string(gateway.dir.path().join("tollgate.toml")).unwrap();
    // Not killed: what is not known to be delivered could be fetched once more.
    let gateway = Gateway::start_in(gateway.stop().1, &config);
    assert_eq!(old(&gateway, host, "/paid/a", &v2).reason(), "payment_already_used");
    assert_eq!(old(&gateway, host, "/paid/b", &v1).reason(), "payment_already_used");
    assert_eq!((origin.calls(), facilitator.count("/settle")), (2, 2));
}

#[test]
fn an_offer_under_another_secret_is_unknown() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let toml = token_shop_toml(&origin, &facilitator, "");
    let gateway = Gateway::start(&toml);
    let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
    let (host, dir) = (gateway.addr, gateway.kill());
    std::fs::remove_file(dir.path().join("tollgate-secret.json")).unwrap();
    let gateway = Gateway::start_in(dir, &toml);
    let answer = old(&gateway, host, "/paid/a", &payload);
    assert_eq!((answer.status, answer.reason()), (402, "unknown_offer"), "{}", answer.text());
    assert_eq!((origin.calls(), facilitator.count("/verify")), (0, 0));
}

#[test]
fn an_offer_in_a_token_that_is_gone_gets_fresh_offers() {
    let token = format!(
        "asset = \"{OTHER}\"\nname = \"Coin\"\nversion = \"1\"\ndecimals = 6\ncurrency = \"USD\"\npay_to = \"{PAY_TO}\""
    );
    let change = |toml: String| toml.replace(&format!("pay_to = \"{PAY_TO}\""), &token);
    let (origin, facilitator, wallet, gateway, (host, [v2, v1])) = restarted(change);
    let answer = old(&gateway, host, "/paid/a", &wallet.sign(&v2));
    assert_eq!((answer.status, answer.reason()), (402, "unknown_offer"), "{}", answer.text());
    let offers = field_offer(&answer);
    assert_eq!(offers["error"], "invalid_payment_requirements");
    assert_eq!((&offers["accepts"][0]["asset"], offers["accepts"].as_array().unwrap().len()), (&OTHER.into(), 1));
    // Version 1 names no token; the signature does.
    let answer = old(&gateway, host, "/paid/b", &wallet.sign(&v1));
    assert_eq!((answer.status, answer.reason()), (402, "payment_refused"));
    assert_eq!(answer.json()["error"], "invalid_exact_evm_payload_signature");
    assert_eq!(answer.json()["accepts"][0]["asset"], OTHER);
    assert_eq!((origin.calls(), facilitator.count("/verify")), (0, 0));
    let fresh = old(&gateway, host, "/paid/b", &wallet.sign(&wallet.draft_of(&answer)));
    assert_eq!(fresh.status, 200, "{}", fresh.text());
    assert_eq!(wallet.buy(gateway.addr, "/paid/a").status, 200);
}

#[test]
fn an_offer_pays_whom_it_named_and_a_new_one_the_new() {
    let change = |toml: String| toml.replace(&format!("pay_to = \"{PAY_TO}\""), &format!("pay_to = \"{OTHER}\""));
    let (origin, facilitator, wallet, gateway, (host, [v2, v1])) = restarted(change);
    // An old offer can't be made to pay anybody else.
    for change in [
        |v: &mut Value| v["accepted"]["payTo"] = OTHER.into(),
        |v: &mut Value| {
            v["payload"]["authorization"]["to"] = OTHER.into();
        },
    ] {
        let mut payload = wallet.sign(&v2);
        change(&mut payload);
        assert_eq!(old(&gateway, host, "/paid/a", &payload).reason(), "payment_refused");
    }
    assert_eq!(old(&gateway, host, "/paid/a", &wallet.sign(&v2)).status, 200);
    // Version 1 carries no offer: what it was quoted is remembered.
    assert_eq!(old(&gateway, host, "/paid/b", &wallet.sign(&v1)).status, 200);
    let earlier = (PAY_TO.into(), "10000".into());
    assert_eq!(settled(&facilitator), [earlier.clone(), earlier]);
    for draft in [wallet.draft(gateway.addr, "/paid/c"), wallet.draft_v1(gateway.addr, "/paid/c")] {
        assert_eq!(send(gateway.addr, "GET", "/paid/c", &wallet.sign(&draft)).status, 200);
    }
    assert_eq!(settled(&facilitator)[2..], [(OTHER.into(), "10000".into()), (OTHER.into(), "10000".into())]);
    assert_eq!(origin.calls(), 4);
}

#[test]
fn an_offer_keeps_its_price_and_its_lifetime() {
    let change = |toml: String| {
        let toml = toml.replace("0.01 USD", "0.05 USD");
        toml.replace("[origin]", "[offers]\nttl_seconds = 120\n[origin]")
    };
    let (origin, facilitator, wallet, gateway, (host, [v2, v1])) = restarted(change);
    assert_eq!(old(&gateway, host, "/paid/a", &wallet.sign(&v2)).status, 200);
    assert_eq!(old(&gateway, host, "/paid/b", &wallet.sign(&v1)).status, 200);
    // Neither for another route, nor for an amount that nobody was quoted.
    let mut dear = v1.clone();
    dear.authorization.value = tollgate::wire::evm::u256::U256::from(20_000_u64);
    let answer = old(&gateway, host, "/paid/b", &wallet.sign(&dear));
    assert_eq!(answer.json()["error"], "invalid_exact_evm_payload_authorization_value_mismatch");
    assert_eq!(answer.json()["accepts"][0]["maxAmountRequired"], "50000");
    assert_eq!(wallet.buy(gateway.addr, "/paid/c").status, 200);
    let asked: Vec<Value> = settled(&facilitator).into_iter().map(|(_, amount)| amount).collect();
    assert_eq!((asked, origin.calls()), (vec!["10000".into(), "10000".into(), "50000".into()], 3));
}

#[test]
fn an_offer_of_a_route_that_takes_no_tokens_any_more() {
    let change = |toml: String| {
        let account =
            "\n[deferred]\n[[accounts]]\nname = \"a\"\nagents = [\"https://a.example\"]\ncredit = \"1 USD\"\n";
        toml.replace("accept = [\"exact\"]", "accept = [\"deferred\"]") + account
    };
    let (origin, facilitator, wallet, gateway, (host, [v2, v1])) = restarted(change);
    // What was quoted is honoured, for the token is still configured.
    for (path, payload) in [("/paid/a", wallet.sign(&v2)), ("/paid/b", wallet.sign(&v1))] {
        let answer = old(&gateway, host, path, &payload);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!((origin.calls(), facilitator.count("/settle")), (2, 2));
}

/// The facilitator's word stays the facilitator's: nothing of a payment is remembered by a restart but what was written.
#[test]
fn a_refusal_before_a_restart_does_not_bind_after_it() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let toml = token_shop_toml(&origin, &facilitator, "");
    let gateway = Gateway::start(&toml);
    let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
    let host = gateway.addr;
    facilitator.next("/verify", Behaviour::Invalid("insufficient_funds"));
    assert_eq!(old(&gateway, host, "/paid/a", &payload).status, 402);
    let gateway = Gateway::start_in(gateway.kill(), &toml);
    assert_eq!(old(&gateway, host, "/paid/a", &payload).status, 200);
    assert_eq!((origin.calls(), facilitator.count("/settle")), (1, 1));
    assert_eq!(facilitator.calls_of("/settle")[0].body["paymentRequirements"]["asset"], USDC);
}

#[test]
fn a_new_ledger_beside_an_old_secret_takes_no_payment_from_before() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let toml = token_shop_toml(&origin, &facilitator, "");
    let gateway = Gateway::start(&toml);
    let (v2, v1) = (wallet.draft(gateway.addr, "/paid/a"), wallet.draft_v1(gateway.addr, "/paid/b"));
    let (v2, v1) = (wallet.sign(&v2), wallet.sign(&v1));
    let host = gateway.addr;
    assert_eq!(old(&gateway, host, "/paid/a", &v2).status, 200);
    assert_eq!(old(&gateway, host, "/paid/b", &v1).status, 200);
    let (_, dir) = gateway.stop();
    for file in std::fs::read_dir(dir.path()).unwrap().flatten() {
        if file.file_name().to_string_lossy().starts_with("tollgate.sqlite") {
            std::fs::remove_file(file.path()).unwrap();
        }
    }
    let gateway = Gateway::start_in(dir, &toml);
    for (path, payload) in [("/paid/a", &v2), ("/paid/b", &v1)] {
        let answer = old(&gateway, host, path, payload);
        assert_eq!((answer.status, answer.reason()), (402, "offer_expired"), "{answer:?}");
    }
    assert_eq!((origin.calls(), facilitator.count("/settle")), (2, 2));
    assert_eq!(wallet.buy(gateway.addr, "/paid/a").status, 200);
}

#[test]
fn what_v1_was_quoted_for_one_route_buys_no_other() {
    let more = |price: &str| format!("[[routes]]\npath = \"/dear/*\"\nprice = \"{price}\"\naccept = [\"exact\"]\n");
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let toml = token_shop_toml(&origin, &facilitator, &more("1 USD"));
    let gateway = Gateway::start(&toml);
    let (cheap, host) = (wallet.sign(&wallet.draft_v1(gateway.addr, "/paid/b")), gateway.addr);
    let gateway = Gateway::start_in(gateway.kill(), &toml.replace("0.01 USD", "0.02 USD"));
    let answer = old(&gateway, host, "/dear/b", &cheap);
    assert_eq!(answer.json()["error"], "invalid_exact_evm_payload_authorization_value_mismatch", "{}", answer.text());
    assert_eq!((origin.calls(), facilitator.count("/verify")), (0, 0));
    assert_eq!(old(&gateway, host, "/paid/b", &cheap).status, 200);
}
