//! Calls that are bought: by tokens and on credit, in each kind, in both forms of answer.

use serde_json::{Value, json};

use crate::support::facilitator::Facilitator;
use crate::support::mcp::{
    TOOLS, answer_of, asked, buy, call, head, messages, offer, paid, post, server, shop, shop_toml,
};
use crate::support::wallet::{Wallet, receipt};
use crate::support::*;

const RECEIPT: &str = "x402/payment-response";

#[test]
fn tools_prompts_and_resources_are_offered_and_bought() {
    let (server, facilitator, wallet) = (server(), Facilitator::start(), Wallet::new());
    let gateway = shop(&server, &facilitator);
    let prompt = json!({"jsonrpc": "2.0", "id": "p", "method": "prompts/get", "params": {"name": "greet"}});
    let resource = json!({"jsonrpc": "2.0", "id": 7, "method": "resources/read", "params": {"uri": "memo://a"}});
    let calls = [
        (call("add"), "tool/add", "10000"),
        (call("dear"), "tool/dear", "1000000"),
        (call("größe"), "tool/gr%C3%B6%C3%9Fe", "10000"),
        (prompt, "prompt/greet", "20000"),
        (resource, "resource/memo://a", "20000"),
    ];
    for (i, (call, sold, amount)) in calls.iter().enumerate() {
        let asked_for = post(gateway.addr, "", &call.to_string());
        let offer = offer(&asked_for);
        assert_eq!(asked_for.json()["id"], call["id"]);
        assert_eq!(offer["resource"]["url"], format!("mcp://{sold}"));
        assert_eq!((&offer["error"], &offer["accepts"][0]["amount"]), (&json!("payment_required"), &json!(amount)));
        assert_eq!(server.calls(), i, "nothing is called before it is paid");
        let payment = wallet.sign(&wallet.draft_from(&offer));
        let bought = post(gateway.addr, "", &paid(call, &payment).to_string());
        let answer = bought.json();
        assert_eq!((bought.status, &answer["id"]), (200, &call["id"]), "{answer}\n{}", gateway.log());
        assert!(answer["result"]["content"][0]["text"].as_str().unwrap().starts_with("secret "), "{answer}");
        assert!(bought.text().contains("\"n\":1.50"), "untouched: {}", bought.text());
        let paid = &answer["result"]["_meta"][RECEIPT];
        assert_eq!((&paid["success"], &paid["network"]), (&json!(true), &json!("eip155:84532")), "{answer}");
        assert_eq!(receipt(&bought).as_ref(), Some(paid), "the field says the same");
        assert_eq!(bought.header("cache-control"), Some("private"));
        let seen = server.last();
        let mut without = call.clone();
        without["params"]["_meta"] = json!({});
        assert_eq!(asked(&seen), without, "the payment stays here");
        assert_eq!(seen.header("content-length"), Some(&*seen.body.len().to_string()));
        assert_eq!(
            (seen.header("accept-encoding"), seen.header("tollgate-account")),
            (Some("identity"), Some("wallets"))
        );
    }
    assert_eq!((facilitator.count("/verify"), facilitator.count("/settle")), (calls.len(), calls.len()));
    let (_, dir) = gateway.stop();
    let books = Books::read(dir.path());
    assert_eq!((books.captures.len(), books.intents, books.voids.len()), (calls.len(), calls.len(), 0), "{books:?}");
}

#[test]
fn what_is_free_passes_byte_for_byte() {
    let (server, facilitator) = (server(), Facilitator::start());
    let gateway = shop(&server, &facilitator);
    let list = " {\"jsonrpc\":\"2.0\" ,\"id\":1,\"method\":\"tools/list\",\"params\":{\"n\":1.50}}";
    let answer = post(gateway.addr, "Mcp-Session-Id: s1\r\nLast-Event-ID: 1\r\n", list);
    assert_eq!((answer.status, answer.text().as_str()), (200, TOOLS));
    assert_eq!(server.last().body, list.as_bytes());
    assert_eq!((server.last().header("mcp-session-id"), server.last().header("last-event-id")), (Some("s1"), None));
    let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    assert_eq!(post(gateway.addr, "", note).status, 202);
    assert_eq!(post(gateway.addr, "", &call("free").to_string()).json()["result"]["n"], 1.5);
    let response = r#"{"jsonrpc":"2.0","id":5,"result":{"roots":[]}}"#;
    assert_eq!(post(gateway.addr, "", response).status, 200);
    let batch = format!("[{note},{list}]");
    assert_eq!(post(gateway.addr, "", &batch).status, 200);
    assert_eq!(server.last().body, batch.as_bytes());
    let calls = server.calls();
    for method in ["GET", "DELETE"] {
        let fields = "Mcp-Session-Id: s1\r\nLast-Event-ID: 1\r\nConnection: close\r\n";
        let answer =
            exchange(gateway.addr, format!("{method} /mcp HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", gateway.addr));
        assert_eq!(answer.status, 200);
        assert!(!server.last().has("last-event-id"), "nothing that was not paid is fetched again");
    }
    assert_eq!((server.calls(), facilitator.count("/verify")), (calls + 2, 0));
    // A payment that was not needed is not the server's to see.
    let needless = paid(&call("free"), &json!({"a": 1}));
    assert_eq!(post(gateway.addr, "", &needless.to_string()).status, 200);
    assert_eq!(asked(&server.last())["params"]["_meta"], json!({}));
}

#[test]
fn a_stream_passes_but_for_its_result() {
    let (server, facilitator, wallet) = (server(), Facilitator::start(), Wallet::new());
    let gateway = shop(&server, &facilitator);
    for (name, count) in [("events", 3), ("events-lines", 2)] {
        let bought = buy(&wallet, gateway.addr, &call(name));
        assert_eq!((bought.status, bought.header("content-type")), (200, Some("text/event-stream")), "{bought:?}");
        assert_eq!((bought.header("x-accel-buffering"), bought.header("cache-control")), (Some("no"), Some("private")));
        let text = bought.text();
        assert!(text.starts_with(": hello\r\n\r\nid: 1\r\ndata: "), "{text}");
        assert!(text.contains("id: 0\r\ndata: \r\ndata:  \r\n\r\n"), "blank data says nothing: {text}");
        assert!(text.contains("event: message\nid: 2\ndata: "), "{text}");
        let answer = answer_of(&bought);
        assert_eq!(answer["result"]["_meta"][RECEIPT]["success"], true, "{text}");
        assert_eq!(messages(&bought).len(), count, "what comes after the result passes: {text}");
    }
    let (_, dir) = gateway.stop();
    let books = Books::read(dir.path());
    assert_eq!((books.captures.len(), books.voids.len()), (2, 0), "{books:?}");
}

#[test]
fn a_signed_request_pays_a_tool_on_credit() {
    let (server, facilitator, agent) = (server(), Facilitator::start(), Agent::start());
    let gateway = Gateway::start(&shop_toml(&server, &facilitator, &agent.url, ""));
    let authority = gateway.addr.to_string();
    for (name, i) in [("add", 0), ("events", 1)] {
        let body = call(name).to_string();
        let offer = offer(&post(gateway.addr, "", &body));
        let entries = offer["accepts"].as_array().unwrap();
        let id =
            entries.iter().find(|e| e["scheme"] == "deferred").unwrap()["extra"]["id"].as_str().unwrap().to_owned();
        let signed = agent.signed(&authority, "POST", "/mcp", &id).with(|r| {
            r.signed = vec![("accept-encoding".into(), "gzip, br".into()), ("content-md5".into(), "x".into())];
            r.covers.extend(["accept-encoding".into(), "content-md5".into()]);
        });
        let mut fields: String = signed.fields().iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        fields += "accept-encoding: gzip, br\r\ncontent-md5: x\r\n";
        let bought = post(gateway.addr, &fields, &body);
        let answer = answer_of(&bought);
        let paid = &answer["result"]["_meta"][RECEIPT];
        assert_eq!((&paid["success"], &paid["network"]), (&json!(true), &json!("tollgate:deferred")), "{answer}");
        assert_eq!((server.calls(), server.last().header("tollgate-account")), (i + 1, Some("acme")));
        assert_eq!(
            (server.last().header("accept-encoding"), server.last().has("content-md5")),
            (Some("identity"), true)
        );
        let again = post(gateway.addr, &fields, &body);
        assert_eq!((again.reason(), server.calls()), ("already_used", i + 1));
    }
    let (_, dir) = gateway.stop();
    assert_eq!(Books::read(dir.path()).captures.len(), 2);
}

/// What a call costs is offered to all alike; what it is charged depends on who has signed for it.
#[test]
fn a_verified_agent_pays_its_own_price_for_a_call_and_a_blocked_one_is_refused() {
    let (server, facilitator) = (server(), Facilitator::start());
    let [cheap, free, blocked, licensed, other] = [(); 5].map(|()| Agent::start());
    let of = |name: &str, agent: &Agent, more: &str| {
        format!("[[accounts]]\nname = \"{name}\"\nagents = [\"{}\"]\ncredit = \"1 USD\"\n{more}", agent.url)
    };
    let accounts = [
        of("free", &free, ""),
        of("blocked", &blocked, ""),
        of("licensed", &licensed, "prices = [{ routes = [\"adding\"], price = \"0.002 USD\" }]\n"),
        of("other", &other, ""),
    ];
    let rule = |agent: &Agent, then: &str| format!("[[routes.agents]]\nagent = \"{}\"\n{then}\n", agent.url);
    let rules = [rule(&cheap, "price = \"0.004 USD\""), rule(&free, "allow = true"), rule(&blocked, "block = true")];
    let toml = shop_toml(&server, &facilitator, &cheap.url, &accounts.concat());
    let toml = toml.replacen(
        "tool = \"*\"\nprice = \"0.01 USD\"\n",
        "tool = \"*\"\nname = \"adding\"\nprice = \"0.01 USD\"\n",
        1,
    );
    let first = "accept = [\"exact\", \"deferred\"]\n";
    let gateway = Gateway::start(&toml.replacen(first, &format!("{first}{}", rules.concat()), 1));
    let authority = gateway.addr.to_string();
    let body = call("add").to_string();
    for (agent, charged) in [
        (&cheap, Some("0.004 USD")),
        (&free, Some("")),
        (&blocked, None),
        (&licensed, Some("0.002 USD")),
        (&other, Some("0.01 USD")),
    ] {
        let offer = offer(&post(gateway.addr, "", &body));
        let entries = offer["accepts"].as_array().unwrap();
        let entry = entries.iter().find(|entry| entry["scheme"] == "deferred").unwrap();
        assert_eq!(entry["extra"]["price"], "0.01 USD");
        let signed = agent.signed(&authority, "POST", "/mcp", entry["extra"]["id"].as_str().unwrap());
        let fields: String = signed.fields().iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let calls = server.calls();
        let bought = post(gateway.addr, &fields, &body);
        match charged {
            Some(charged) => {
                let said = bought.header("tollgate-charged").unwrap_or("");
                assert_eq!((said, server.calls()), (charged, calls + 1), "{}", bought.text());
            }
            None => assert_eq!((bought.reason(), server.calls()), ("agent_blocked", calls)),
        }
    }
    // Without a payment, too: a signature is enough to have it free, and a claim is enough to be refused.
    for (agent, reason, called) in [
        (&free, "", 1),
        (&blocked, "agent_blocked", 0),
        (&other, "payment_required", 0),
        (&licensed, "payment_required", 0),
    ] {
        let signed = agent.signed(&authority, "POST", "/mcp", "");
        let signed = signed.with(|r| r.covers = ["@authority", "signature-agent;sig1"].map(String::from).to_vec());
        let lines = signed.fields();
        let lines = lines.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("payment"));
        let fields: String = lines.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        assert!(!fields.to_ascii_lowercase().contains("payment"), "{fields}");
        let calls = server.calls();
        let answer = post(gateway.addr, &fields, &body);
        assert_eq!((answer.reason(), server.calls() - calls), (reason, called), "{}", answer.text());
    }
    let (_, dir) = gateway.stop();
    assert_eq!(Books::read(dir.path()).captures.len(), 3);
}

#[test]
fn payments_in_fields_and_of_version_1_are_taken_too() {
    let (server, facilitator, wallet) = (server(), Facilitator::start(), Wallet::new());
    let gateway = shop(&server, &facilitator);
    let call = call("add");
    let field = |name: &str, payment: &Value| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        format!("{name}: {}\r\n", STANDARD.encode(payment.to_string()))
    };
    let draft = || wallet.draft_from(&offer(&post(gateway.addr, "", &call.to_string())));
    let payment = wallet.sign(&draft());
    let bought = post(gateway.addr, &field("PAYMENT-SIGNATURE", &payment), &call.to_string());
    assert_eq!(bought.json()["result"]["_meta"][RECEIPT]["success"], true, "{bought:?}");
    // The same in both, as some clients send it.
    let payment = wallet.sign(&draft());
    let both = paid(&call, &payment).to_string();
    let bought = post(gateway.addr, &field("PAYMENT-SIGNATURE", &payment), &both);
    assert_eq!(bought.json()["result"]["_meta"][RECEIPT]["success"], true, "{bought:?}");
    let other = wallet.sign(&draft());
    let refused = post(gateway.addr, &field("PAYMENT-SIGNATURE", &other), &both);
    assert_eq!((refused.reason(), server.calls()), ("several_payments", 2));
    offer(&refused);
    let mut old = draft();
    (old.version, old.entry["network"]) = (1, json!("base-sepolia"));
    let old = wallet.sign(&old);
    let bought = post(gateway.addr, "", &paid(&call, &old).to_string());
    let answer = bought.json();
    assert_eq!(answer["result"]["_meta"][RECEIPT]["network"], "base-sepolia", "{answer}");
    assert_eq!(server.calls(), 3);
}

#[test]
fn by_setting_http_asks_for_the_payment() {
    let (server, facilitator, wallet) = (server(), Facilitator::start(), Wallet::new());
    let toml = shop_toml(&server, &facilitator, "https://signer.example", "[mcp]\nsignal = \"http_402\"\n");
    let gateway = Gateway::start(&toml);
    for (name, i) in [("add", 1), ("events", 2), ("events-only", 3)] {
        let call = call(name);
        let asked_for = post(gateway.addr, "", &call.to_string());
        assert_eq!((asked_for.status, asked_for.reason()), (402, "payment_required"));
        let payment = wallet.sign(&wallet.draft_of(&asked_for));
        let bought = post(gateway.addr, "", &paid(&call, &payment).to_string());
        assert_eq!(answer_of(&bought)["result"]["_meta"][RECEIPT]["success"], true, "{bought:?}");
        let again = post(gateway.addr, "", &paid(&call, &payment).to_string());
        assert_eq!((again.status, again.reason(), server.calls()), (409, "payment_already_used", i));
    }
    // A call that has begun to answer can't be told by a status any more.
    let call = call("events-none");
    let payment = wallet.sign(&wallet.draft_of(&post(gateway.addr, "", &call.to_string())));
    let cut = post(gateway.addr, "", &paid(&call, &payment).to_string());
    assert_eq!((cut.status, answer_of(&cut)["error"]["data"]["reason"].clone()), (200, json!("origin_invalid")));
    assert!(head(gateway.addr, "", "").starts_with("POST /mcp"));
}

/// Clients that hold `structuredContent` against a tool's output schema read the text.
#[test]
fn by_setting_the_offer_stands_in_the_text_alone() {
    let (server, facilitator, wallet) = (server(), Facilitator::start(), Wallet::new());
    let toml = shop_toml(&server, &facilitator, "https://signer.example", "[mcp]\nstructured = false\n");
    let gateway = Gateway::start(&toml);
    let answer = post(gateway.addr, "", &call("add").to_string()).json();
    let result = &answer["result"];
    assert_eq!((&result["isError"], result.get("structuredContent")), (&json!(true), None), "{answer}");
    let offer: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
    let payment = wallet.sign(&wallet.draft_from(&offer));
    let bought = post(gateway.addr, "", &paid(&call("add"), &payment).to_string());
    assert_eq!(bought.json()["result"]["_meta"][RECEIPT]["success"], true, "{bought:?}");
}

#[test]
fn the_newest_revision_says_everything_twice() {
    let (server, facilitator, wallet) = (server(), Facilitator::start(), Wallet::new());
    let gateway = shop(&server, &facilitator);
    let call = call("größe");
    let fields = "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: =?base64?Z3LDtsOfZQ==?=\r\n";
    let asked_for = post(gateway.addr, fields, &call.to_string());
    assert_eq!(asked_for.json()["result"]["resultType"], "complete");
    let payment = wallet.sign(&wallet.draft_from(&offer(&asked_for)));
    let bought = post(gateway.addr, fields, &paid(&call, &payment).to_string());
    assert_eq!(bought.json()["result"]["_meta"][RECEIPT]["success"], true, "{bought:?}");
    assert_eq!(server.last().header("mcp-method"), Some("tools/call"));
    for fields in [
        "MCP-Protocol-Version: 2026-07-28\r\n",
        "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\n",
        "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: free\r\n",
        "MCP-Protocol-Version: 2025-11-25\r\nMcp-Method: tools/list\r\n",
        "Mcp-Name: free\r\n",
    ] {
        let refused = post(gateway.addr, fields, &call.to_string());
        let answer = refused.json();
        assert_eq!(
            (refused.status, &answer["error"]["code"], &answer["id"]),
            (400, &json!(-32020), &json!(1)),
            "{fields}"
        );
    }
    assert_eq!(server.calls(), 1);
}
