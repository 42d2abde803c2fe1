//! The official MCP server behind the gateway, unchanged, and the official MCP clients that pay for its tool.

use serde_json::{Value, json};

use crate::stage::Stage;
use crate::support::client::get;
use crate::support::mcp::{answer_of, offer, paid, post};
use crate::support::*;

/// 0.01 USD in atomic units of USDC.
const PRICE: u64 = 10_000;
/// The ways in which the server answers: event streams with sessions, JSON with sessions, event streams without.
const MODES: [&str; 3] = ["session", "json", "stateless"];

fn calls(server: &crate::stage::Server) -> Value {
    get(server.addr("calls"), "/calls").json()
}

#[test]
fn every_mcp_client_pays_for_a_tool_of_an_unchanged_server() {
    let Some(stage) = Stage::enter() else { return };
    for mode in MODES {
        let server = stage.mcp_server(mode, "");
        let gateway = stage.mcp_gateway(server.addr("url"), "");
        let url = format!("http://{}/mcp", gateway.addr);
        let mut bought = 0;
        for script in ["mcp_client.mjs", "mcp_client.py"] {
            let before = stage.tally();
            let Some(line) = stage.run_mcp(script, &url, &[]) else { continue };
            bought += 1;
            assert_eq!(
                (&line["result"]["content"][0]["text"], &line["paid"]),
                (&json!("5"), &json!(true)),
                "{mode} {script}: {line}"
            );
            assert_eq!(line["tools"], json!(["add", "echo", "fail"]), "the list is the server's own");
            let paid = &line["receipt"];
            assert_eq!(
                (&paid["success"], &paid["network"]),
                (&json!(true), &stage.facilitator.facts["network"]),
                "{line}"
            );
            assert_eq!(paid["transaction"].as_str().map(str::len), Some(66), "{line}");
            let after = stage.tally();
            let moved = (after.payee - before.payee, before.payer - after.payer, after.settled - before.settled);
            assert_eq!(moved, (PRICE, PRICE, 1), "{mode} {script}");
            assert_eq!(calls(&server)["add"], bought, "{mode} {script}");
            // What has no price passes without a word about payments.
            let echo = [("TOOL", "echo"), ("ARGUMENTS", "{\"text\":\"hi\"}")];
            let line = stage.run_mcp(script, &url, &echo).unwrap();
            assert_eq!((&line["result"]["content"][0]["text"], &line["paid"]), (&json!("hi"), &json!(false)), "{line}");
        }
        let (_, dir) = gateway.stop();
        let books = Books::read(dir.path());
        assert_eq!((books.captures.len(), books.intents, books.voids.len()), (bought, bought, 0), "{books:?}");
    }
}

#[test]
fn a_tool_that_fails_costs_nothing() {
    let Some(stage) = Stage::enter() else { return };
    let server = stage.mcp_server("session", "");
    let gateway = stage.mcp_gateway(server.addr("url"), "");
    let url = format!("http://{}/mcp", gateway.addr);
    let before = stage.tally();
    let fail = [("TOOL", "fail"), ("ARGUMENTS", "{}")];
    let line = stage.run_mcp("mcp_client.mjs", &url, &fail).unwrap();
    assert_eq!((&line["result"]["isError"], &line["receipt"]), (&json!(true), &Value::Null), "{line}");
    assert_eq!(line["result"]["content"][0]["text"], "it did not work", "{line}");
    assert_eq!((stage.tally(), calls(&server)["fail"].as_u64()), (before, Some(1)));
    // Clients that know nothing of payments can read what they are told about prompts and resources.
    for (name, value, member) in [("READ", "memo://greeting", "contents"), ("PROMPT", "greet", "messages")] {
        let line = stage.run_mcp("mcp_client.mjs", &url, &[(name, value)]).unwrap();
        assert_eq!(line["result"]["isError"], true, "{line}");
        assert!(
            line["result"][member].is_array() && line["result"]["structuredContent"]["accepts"].is_array(),
            "{line}"
        );
    }
    let (_, dir) = gateway.stop();
    assert_eq!(Books::read(dir.path()).captures.len(), 0);
}

/// Our answers have what those of x402's own wrapper for MCP servers have.
#[test]
fn offers_and_receipts_are_those_of_an_official_shop() {
    let Some(stage) = Stage::enter() else { return };
    let Some(shop) = stage.mcp_shop() else { return };
    let server = stage.mcp_server("json", "");
    let gateway = stage.mcp_gateway(server.addr("url"), "");
    let session = {
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-11-25",
            "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}}});
        let answer = post(gateway.addr, "", &hello.to_string());
        format!("Mcp-Session-Id: {}\r\n", answer.header("mcp-session-id").unwrap())
    };
    let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call",
        "params": {"name": "add", "arguments": {"a": 2, "b": 3}}});
    let asked = [(gateway.addr, &*session), (shop.addr("url"), "")].map(|(addr, fields)| {
        let offer = offer(&post(addr, fields, &call.to_string()));
        let payment = stage.payer.sign(&stage.payer.draft_from(&offer));
        let bought = post(addr, fields, &paid(&call, &payment).to_string());
        let result = answer_of(&bought)["result"].clone();
        assert_eq!(result["content"][0]["text"], "5", "{bought:?}");
        (offer, result["_meta"]["x402/payment-response"].clone())
    });
    let [(ours, our_receipt), (theirs, their_receipt)] = asked;
    assert_eq!((&ours["x402Version"], &ours["resource"]["url"]), (&theirs["x402Version"], &theirs["resource"]["url"]));
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(names(&ours), names(&theirs));
    let (entry, their_entry) = (&ours["accepts"][0], &theirs["accepts"][0]);
    assert_eq!(names(entry), names(their_entry));
    for name in ["scheme", "network", "asset", "amount", "payTo"] {
        assert_eq!(entry[name], their_entry[name], "{name}");
    }
    assert!(names(&our_receipt).is_superset(&names(&their_receipt)), "{our_receipt} {their_receipt}");
    assert_eq!(
        (&our_receipt["success"], &our_receipt["network"]),
        (&their_receipt["success"], &their_receipt["network"])
    );
}

/// The SDK's client for TypeScript refuses a result whose `structuredContent` is not of the tool's output schema.
#[test]
fn a_tool_with_an_output_schema_is_sold_by_its_text() {
    let Some(stage) = Stage::enter() else { return };
    let server = stage.mcp_server("session", "yes");
    for (more, sells) in [("", false), ("[mcp]\nstructured = false\n", true)] {
        let gateway = stage.mcp_gateway(server.addr("url"), more);
        let url = format!("http://{}/mcp", gateway.addr);
        let line = stage.run_mcp("mcp_client.mjs", &url, &[("TOOL", "sum")]).unwrap();
        assert_eq!(line["result"]["structuredContent"] == json!({"sum": 5}), sells, "{line}");
        assert_eq!(line["error"].as_str().is_some_and(|error| error.contains("output schema")), !sells, "{line}");
    }
    let gateway = stage.mcp_gateway(server.addr("url"), "");
    let url = format!("http://{}/mcp", gateway.addr);
    if let Some(line) = stage.run_mcp("mcp_client.py", &url, &[("TOOL", "sum")]) {
        assert_eq!(line["result"]["structuredContent"], json!({"sum": 5}), "{line}");
    }
}
