//! Payments of every scheme on a route that observes: judged, not taken, and good for a purchase afterwards.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::agent::field_offer;
use crate::support::client::get;
use crate::support::facilitator::Facilitator;
use crate::support::permit::{Permit, upto_shop_toml};
use crate::support::wallet::{self, Wallet, send, token_shop_toml};
use crate::support::*;
use crate::{entries, is_free, observed_in, reload, short};

/// A gateway that enforced when offers were made, and observes by now; stopped with what it has observed and sold.
fn check(enforcing: &str, pay: impl Fn(&Gateway, &dyn Fn()) -> Vec<String>) -> (Vec<String>, Vec<Value>) {
    let observing = enforcing.replace("[origin]", "mode = \"observe\"\n[origin]");
    let gateway = Gateway::start(enforcing);
    let observe = || reload(&gateway, &observing, 1);
    let heads = pay(&gateway, &observe);
    for head in &heads {
        for _ in 0..2 {
            let answer = exchange(gateway.addr, head);
            assert_eq!((answer.status, answer.text().as_str()), (200, "content of /paid/a"), "{head}");
            is_free(&answer);
        }
    }
    // None of it was used up.
    reload(&gateway, enforcing, 2);
    assert_eq!(get(gateway.addr, "/paid/a").status, 402);
    for head in &heads {
        let answer = exchange(gateway.addr, head);
        assert_eq!(answer.status, 200, "{head}: {}", answer.text());
    }
    let (_, dir) = gateway.stop();
    (short(&observed_in(dir.path(), "account,agent,scheme")), entries(dir.path()))
}

#[test]
fn deferred_is_judged_by_its_offer() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let (rows, entries) = check(&site_toml(&origin, &agent, ""), |gateway, observe| {
        let request = agent.request(gateway.addr, "GET", "/paid/a");
        observe();
        vec![request.head()]
    });
    assert_eq!(rows, [format!("acme {} deferred 0 2 0 0.02 0.00 {{}}", agent.url)]);
    assert_eq!((entries.len(), origin.calls()), (1, 3));
}

#[test]
fn batch_settlement_is_judged_with_an_id_and_without() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "accept = [\"batch-settlement\"]\n");
    let (rows, entries) = check(&toml, |gateway, observe| {
        let mut entry = field_offer(&get(gateway.addr, "/paid/a"))["accepts"][0].clone();
        observe();
        let signed = |entry: &Value| {
            let payload = json!({"x402Version": 2, "payload": {"amount": entry["amount"], "asset": entry["asset"]},
                "accepted": entry});
            agent.signed_in("PAYMENT-SIGNATURE", gateway.addr, "/paid/a", &STANDARD.encode(payload.to_string())).head()
        };
        let with_id = signed(&entry);
        entry["extra"] = json!({"version": "1.0.0"});
        vec![with_id, signed(&entry)]
    });
    assert_eq!(rows, [format!("acme {} batch-settlement 0 4 0 0.04 0.00 {{}}", agent.url)]);
    assert_eq!(entries.len(), 2);
}

#[test]
fn crawls_are_judged_and_the_routes_price_stands_for_the_origins() {
    let (origin, agent) = (Origin::start(), Agent::start());
    for in_band in ["", "origin_price = true\nmethods = [\"GET\"]\n"] {
        let more = format!("accept = [\"crawl\"]\n{in_band}");
        let (rows, entries) = check(&site_toml(&origin, &agent, &more), |gateway, observe| {
            observe();
            let low = agent.signed_in("crawler-max-price", gateway.addr, "/paid/a", "USD 0.001");
            assert_eq!(exchange(gateway.addr, low.head()).status, 200);
            vec![agent.signed_in("crawler-max-price", gateway.addr, "/paid/a", "USD 5").head()]
        });
        let refused = "unknown other crawl 0 0 1 0.00 0.00 {\"price_not_acceptable\":1}".to_owned();
        assert_eq!(rows, [format!("acme {} crawl 0 2 0 0.02 0.00 {{}}", agent.url), refused]);
        assert_eq!((entries.len(), &entries[0]["amount"]), (1, &json!("0.01")));
    }
}

#[test]
fn tokens_are_judged_without_a_facilitator() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let (rows, entries) = check(&token_shop_toml(&origin, &facilitator, ""), |gateway, observe| {
        let payloads = [wallet.draft(gateway.addr, "/paid/a"), wallet.draft_v1(gateway.addr, "/paid/a")];
        let payloads = payloads.map(|draft| wallet.sign(&draft));
        observe();
        // Signed by somebody else than it says.
        let mut forged = payloads[0].clone();
        forged["payload"]["authorization"]["from"] = json!(Wallet::new().address.to_string());
        is_free(&send(gateway.addr, "GET", "/paid/a", &forged));
        assert_eq!((facilitator.count("/verify"), facilitator.count("/settle")), (0, 0));
        payloads.iter().map(|payload| wallet::head(gateway.addr, "GET", "/paid/a", payload)).collect()
    });
    // Whoever makes wallets does not make rows.
    assert_eq!(
        rows,
        [
            "unknown other exact 0 0 1 0.00 0.00 {\"payment_refused\":1}",
            "wallets eip155:84532 exact 0 4 0 0.04 0.00 {}"
        ]
    );
    let captures = entries.iter().filter(|entry| entry["kind"] == "capture").count();
    assert_eq!((captures, facilitator.count("/settle")), (2, 2));
}

#[test]
fn upto_would_earn_its_maximum() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let (rows, _) = check(&upto_shop_toml(&origin, &facilitator, ""), |gateway, observe| {
        let permit: Permit = wallet.permit(gateway.addr, "/paid/a");
        observe();
        vec![wallet::head(gateway.addr, "GET", "/paid/a", &wallet.sign_permit(&permit))]
    });
    assert_eq!(rows, ["wallets eip155:84532 upto 0 2 0 0.02 0.00 {}"]);
}
