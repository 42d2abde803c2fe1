//! Calls of an MCP server that are only observed.

use serde_json::{Value, json};

use crate::support::facilitator::Facilitator;
use crate::support::mcp::{call, offer, paid, post, server, shop_toml};
use crate::support::wallet::Wallet;
use crate::support::*;
use crate::{is_free, observed, reload, short};

/// Only `dear` is paid for.
fn some(toml: &str) -> String {
    toml.replacen("[origin]", "mode = \"observe\"\n[origin]", 1).replacen(
        "tool = \"dear\"\n",
        "tool = \"dear\"\nmode = \"enforce\"\n",
        1,
    )
}

#[test]
fn calls_pass_byte_for_byte_and_a_payment_in_one_is_judged_and_stays_here() {
    let (server, facilitator, wallet) = (server(), Facilitator::start(), Wallet::new());
    let toml = shop_toml(&server, &facilitator, "https://signer.example", "");
    let gateway = Gateway::start(&toml);
    let payment = wallet.sign(&wallet.draft_from(&offer(&post(gateway.addr, "", &call("add").to_string()))));
    reload(&gateway, &some(&toml), 1);
    let body = " {\"jsonrpc\":\"2.0\" ,\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"add\",\"arguments\":{\"n\":1.50}}}";
    let answer = post(gateway.addr, "X-PAYMENT: e30=\r\nAccept-Encoding: br\r\n", body);
    assert!(answer.status == 200 && answer.text().contains("secret add"), "{answer:?}");
    is_free(&answer);
    let seen = server.last();
    assert_eq!((seen.body.as_slice(), seen.has("x-payment")), (body.as_bytes(), false));
    assert_eq!((seen.header("accept-encoding"), seen.has("tollgate-account")), (Some("br"), false));
    let body = paid(&call("add"), &payment).to_string();
    let answer = post(gateway.addr, "", &body);
    assert!(answer.text().contains("secret add") && answer.json()["result"].get("_meta").is_none(), "{answer:?}");
    let asked: Value = serde_json::from_slice(&server.last().body).unwrap();
    assert!(asked["params"]["_meta"].get("x402/payment").is_none(), "{asked}");
    // What a paid call may not be, it may be here: nothing is sold.
    let note = json!({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "add"}});
    assert_eq!(post(gateway.addr, "", &note.to_string()).status, 200);
    let mut task = call("add");
    task["params"]["task"] = json!({});
    assert!(post(gateway.addr, "", &task.to_string()).text().contains("secret add"));
    let batch = json!([call("add"), call("mul"), call("free")]).to_string();
    assert_eq!(post(gateway.addr, "", &batch).status, 200);
    assert_eq!(server.last().body, batch.as_bytes());
    // One that is sold is sold as ever.
    let calls = server.calls();
    assert_eq!(offer(&post(gateway.addr, "", &call("dear").to_string()))["accepts"][0]["amount"], "1000000");
    assert_eq!(post(gateway.addr, "", &json!([call("add"), call("dear")]).to_string()).status, 400);
    assert_eq!((server.calls(), facilitator.count("/verify"), facilitator.count("/settle")), (calls, 0, 0));
    let rows = short(&observed(gateway, "route,scheme"));
    assert_eq!(
        rows,
        [
            "/mcp/*#tool/*  0 0 6 0.00 0.00 {\"invalid_message\":5,\"invalid_payment\":1}",
            "/mcp/*#tool/* exact 0 1 0 0.01 0.00 {}"
        ]
    );
}

#[test]
fn rules_are_asked_for_calls_too() {
    let (server, facilitator) = (server(), Facilitator::start());
    let [free, blocked] = [(); 2].map(|()| Agent::start());
    let toml = shop_toml(&server, &facilitator, &free.url, "");
    let rule = |agent: &Agent, then: &str| format!("[[routes.agents]]\nagent = \"{}\"\n{then} = true\n", agent.url);
    let first = "accept = [\"exact\", \"deferred\"]\n";
    let rules = rule(&free, "allow") + &rule(&blocked, "block");
    let toml = some(&toml.replacen(first, &format!("{first}{rules}"), 1));
    let gateway = Gateway::start(&toml);
    let body = call("add").to_string();
    is_free(&post(gateway.addr, "", &body));
    for agent in [&free, &blocked] {
        let signed = agent.signed(&gateway.addr.to_string(), "POST", "/mcp", "");
        let signed = signed.with(|r| r.covers = ["@authority", "signature-agent;sig1"].map(String::from).to_vec());
        let fields: String = signed
            .fields()
            .iter()
            .filter(|(name, _)| !name.eq_ignore_ascii_case("payment"))
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        is_free(&post(gateway.addr, &fields, &body));
    }
    assert_eq!(server.calls(), 3);
    let rows = short(&observed(gateway, "route"));
    assert_eq!(rows, ["/mcp/*#tool/* 1 0 1 0.00 0.01 {\"agent_blocked\":1}"]);
}
