//! Bodies, fields and framings by which a call could look like another one to the gateway than to the server.

use serde_json::{Value, json};

use crate::support::facilitator::Facilitator;
use crate::support::mcp::{asked, call, head, offer, paid, post, server, shop, shop_toml};
use crate::support::wallet::Wallet;
use crate::support::*;

fn refused(answer: &Answer, status: u16, code: i32) {
    let error = &answer.json()["error"];
    assert_eq!((answer.status, &error["code"]), (status, &json!(code)), "{answer:?}");
    assert!(error["data"]["reason"].is_string() && error["message"].is_string(), "{error}");
}

#[test]
fn a_body_that_servers_may_read_in_two_ways_reaches_none() {
    let (server, facilitator) = (server(), Facilitator::start());
    let gateway = shop(&server, &facilitator);
    let nested = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let deep = format!(r#"{{"id":1,"method":"tools/list","params":{{"a":{nested}}}}}"#);
    for (body, code) in [
        ("", -32700),
        ("{", -32700),
        ("\u{feff}{\"id\":1,\"method\":\"tools/list\"}", -32700),
        ("{\"id\":1,\"method\":\"tools/list\",}", -32700),
        ("{\"id\":1,\"method\":\"tools/list\"} {}", -32700),
        ("\"tools/list\"", -32600),
        (r#"{"id":1,"method":"tools/list","method":"tools/call","params":{"name":"dear"}}"#, -32600),
        (r#"{"id":1,"method":"tools/list","\u006dethod":"tools/call","params":{"name":"dear"}}"#, -32600),
        (r#"{"id":1,"method":"tools/list","Method":"tools/call","params":{"name":"dear"}}"#, -32600),
        (r#"{"id":1,"method":"tools/call","params":{"name":"free","name":"dear"}}"#, -32600),
        (r#"{"id":1,"method":"tools/call","params":{"name":"free","\u006eame":"dear"}}"#, -32600),
        (r#"{"id":1,"method":"tools/call","params":{"name":"free","Name":"dear"}}"#, -32600),
        (r#"{"id":1,"method":"tools/call","params":{"name":"free"},"params":{"name":"dear"}}"#, -32600),
        (r#"{"id":1,"method":"tools/call","params":{"name":"free"},"PARAMS":{"name":"dear"}}"#, -32600),
        (r#"{"id":1,"id":2,"method":"tools/call","params":{"name":"dear"}}"#, -32600),
        (r#"{"id":1,"method":"tools/call","params":{"name":"free","_meta":{},"_meta":{"a":1}}}"#, -32600),
        (r#"{"id":1,"method":"tools/call","params":["dear"]}"#, -32602),
        (r#"{"id":1,"method":"tools/call","params":{"name":["dear"]}}"#, -32602),
        (r#"{"id":1,"method":"tools/call"}"#, -32602),
        (&deep, -32600),
    ] {
        refused(&post(gateway.addr, "", body), 400, code);
    }
    let utf16: Vec<u8> = call("dear").to_string().encode_utf16().flat_map(u16::to_le_bytes).collect();
    let request = head(gateway.addr, "", "").replace("Content-Length: 0", &format!("Content-Length: {}", utf16.len()));
    refused(&exchange(gateway.addr, [request.as_bytes(), &utf16].concat()), 400, -32700);
    assert_eq!(server.calls(), 0);
}

#[test]
fn escapes_of_a_name_are_the_name() {
    let (server, facilitator) = (server(), Facilitator::start());
    let gateway = shop(&server, &facilitator);
    for body in [
        r#"{"id":1,"method":"tools\/call","params":{"\u006eame":"d\u0065ar"}}"#,
        r#" { "params" : { "name" : "dear" } , "method" : "t\u006Fols/call" , "id" : 1 } "#,
    ] {
        assert_eq!(offer(&post(gateway.addr, "", body))["accepts"][0]["amount"], "1000000");
    }
    // However the path is spelled.
    for path in ["/mcp/", "/MCP", "/Mcp/", "/mcp/sub/path", "/%6dcp", "/x/../mcp", "/mcp?q=1"] {
        let request = head(gateway.addr, "", &call("dear").to_string()).replace("POST /mcp ", &format!("POST {path} "));
        let answer = exchange(gateway.addr, request);
        assert!(answer.status == 400 || answer.text().contains("1000000"), "{path}: {answer:?}");
    }
    assert_eq!(server.calls(), 0);
}

#[test]
fn only_plain_json_of_a_bounded_size_is_read() {
    let (server, facilitator) = (server(), Facilitator::start());
    let more = "[mcp]\nrequest_bytes = 2048\n";
    let gateway = Gateway::start(&shop_toml(&server, &facilitator, "https://signer.example", more));
    let list = r#"{"id":1,"method":"tools/list"}"#;
    for fields in ["Content-Encoding: gzip\r\n", "Content-Encoding: identity, gzip\r\n"] {
        refused(&post(gateway.addr, fields, list), 415, -32600);
    }
    for kind in
        ["text/plain", "application/json; charset=utf-7", "application/json; charset=utf-16", "multipart/form-data"]
    {
        let request =
            head(gateway.addr, "", list).replace("Content-Type: application/json", &format!("Content-Type: {kind}"));
        refused(&exchange(gateway.addr, request), 415, -32600);
    }
    let request = head(gateway.addr, "", list).replace("Content-Type: application/json\r\n", "");
    refused(&exchange(gateway.addr, request), 415, -32600);
    let large = format!(r#"{{"id":1,"method":"tools/list","params":{{"a":"{}"}}}}"#, "a".repeat(3000));
    refused(&post(gateway.addr, "", &large), 413, -32600);
    let chunked = |body: &str| {
        let pieces: String = body.as_bytes().chunks(7).fold(String::new(), |text, piece| {
            text + &format!("{:x}\r\n{}\r\n", piece.len(), std::str::from_utf8(piece).unwrap())
        });
        let head = head(gateway.addr, "", "").replace("Content-Length: 0", "Transfer-Encoding: chunked");
        exchange(gateway.addr, format!("{head}{pieces}0\r\n\r\n"))
    };
    refused(&chunked(&large), 413, -32600);
    assert_eq!(server.calls(), 0);
    offer(&chunked(&call("add").to_string()));
    assert_eq!((chunked(list).status, server.calls()), (200, 1));
    assert_eq!((server.last().body, server.last().header("transfer-encoding").map(str::to_owned)), (list.into(), None));
}

#[test]
fn a_paid_call_has_an_id_that_can_be_told() {
    let (server, facilitator) = (server(), Facilitator::start());
    let gateway = shop(&server, &facilitator);
    let with = |id: &str| format!(r#"{{"id":{id},"method":"tools/call","params":{{"name":"add"}}}}"#);
    let long = format!("\"{}\"", "a".repeat(300));
    for id in ["null", "1.5", "true", "{}", "[1]", "9007199254740993", "123456789012345678901234567890", "1e999", &long]
    {
        let answer = post(gateway.addr, "", &with(id));
        assert_eq!((answer.status, answer.reason()), (400, "invalid_message"), "{id}");
    }
    let notification = r#"{"method":"tools/call","params":{"name":"add"}}"#;
    refused(&post(gateway.addr, "", notification), 400, -32600);
    for id in ["0", "-7", "\"\"", "\"\\u0031\"", "9007199254740991"] {
        let answer = post(gateway.addr, "", &with(id));
        assert_eq!(answer.json()["id"], serde_json::from_str::<Value>(id).unwrap());
        assert!(answer.text().contains(&format!("\"id\":{id},")), "as it was written: {}", answer.text());
        offer(&answer);
    }
    assert_eq!(server.calls(), 0);
}

#[test]
fn batches_hold_nothing_that_has_a_price() {
    let (server, facilitator) = (server(), Facilitator::start());
    let gateway = shop(&server, &facilitator);
    let list = r#"{"id":1,"method":"tools/list"}"#;
    let add = call("add").to_string();
    let paying = r#"{"id":1,"method":"ping","params":{"_meta":{"x402/payment":{}}}}"#;
    for batch in [format!("[{add}]"), format!("[{list},{add}]"), format!("[{add},{add}]"), format!("[{paying}]")] {
        refused(&post(gateway.addr, "", &batch), 400, -32600);
    }
    refused(&post(gateway.addr, "", &format!("[[{add}]]")), 400, -32600);
    // Nor in another spelling.
    for (method, params) in [("resources/read", r#"{"uri":"MEMO://a"}"#), ("tools/call", r#"{"name":1}"#)] {
        let odd = format!(r#"[{list},{{"id":2,"method":"{method}","params":{params}}}]"#);
        refused(&post(gateway.addr, "", &odd), 400, -32602);
    }
    assert_eq!(server.calls(), 0);
}

#[test]
fn one_resource_has_one_spelling() {
    let (server, facilitator) = (server(), Facilitator::start());
    let gateway = shop(&server, &facilitator);
    let read = |uri: &str| {
        let body = json!({"id": 1, "method": "resources/read", "params": {"uri": uri}}).to_string();
        post(gateway.addr, "", &body)
    };
    for uri in
        ["MEMO://a", "Memo://a", " memo://a", "memo://a\n", "m\temo://a", "memo:\\\\a", "x:/../memo://a", "memo://%61"]
    {
        refused(&read(uri), 400, -32602);
    }
    assert_eq!(server.calls(), 0);
    offer(&read("memo://a"));
    assert_eq!((read("docs://README").status, server.calls()), (200, 1), "what has no price is free");
}

#[test]
fn no_other_method_carries_a_call() {
    let (server, facilitator) = (server(), Facilitator::start());
    let gateway = shop(&server, &facilitator);
    let body = call("add").to_string();
    for method in ["PUT", "PATCH", "QUERY", "post"] {
        let answer = exchange(gateway.addr, head(gateway.addr, "", &body).replace("POST ", &format!("{method} ")));
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("GET, HEAD, POST, DELETE, OPTIONS")),
            "{method}"
        );
    }
    for method in ["GET", "DELETE", "OPTIONS"] {
        let answer = exchange(gateway.addr, head(gateway.addr, "", &body).replace("POST ", &format!("{method} ")));
        assert_eq!(answer.status, 400, "{method}");
    }
    assert_eq!(server.calls(), 0);
    let fields = "X-HTTP-Method-Override: POST\r\nConnection: close\r\n";
    let get = format!("GET /mcp HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", gateway.addr);
    assert_eq!(exchange(gateway.addr, get).status, 200);
    assert!(!server.last().has("x-http-method-override"));
}

/// A task could be started, its client leave before the answer, and `tasks/result` fetch for nothing what was not paid.
#[test]
fn a_call_that_asks_for_a_task_is_not_sold() {
    let (server, facilitator, wallet) = (server(), Facilitator::start(), Wallet::new());
    let gateway = shop(&server, &facilitator);
    let payment = wallet.sign(&wallet.draft_from(&offer(&post(gateway.addr, "", &call("add").to_string()))));
    for (name, task, code) in [
        ("task", json!({"ttl": 60000}), -32602),
        ("task", json!(null), -32602),
        // Servers that ignore case would start one.
        ("Task", json!({"ttl": 60000}), -32600),
    ] {
        let mut call = call("add");
        call["params"][name] = task;
        let unpaid = post(gateway.addr, "", &call.to_string());
        let answer = post(gateway.addr, "", &paid(&call, &payment).to_string());
        refused(&unpaid, 400, code);
        refused(&answer, 400, code);
        assert!(answer.json()["error"]["message"].as_str().unwrap().contains("task"), "{answer:?}");
    }
    assert_eq!((server.calls(), facilitator.count("/verify")), (0, 0));
    // What costs nothing may run as it likes.
    let mut free = call("free");
    free["params"]["task"] = json!({"ttl": 60000});
    assert_eq!((post(gateway.addr, "", &free.to_string()).status, asked(&server.last())), (200, free));
    let bought = post(gateway.addr, "", &paid(&call("add"), &payment).to_string());
    assert!(bought.text().contains("secret"), "the payment is as good as before: {bought:?}");
}
