//! An MCP server in outline, the calls that tests make, and a gateway that sells them.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::client::{Answer, exchange};
use super::facilitator::Facilitator;
use super::gateway::Gateway;
use super::origin::{Origin, Seen};
use super::wallet::{PAY_TO, Wallet};

/// The list of tools, with blanks and numbers that a reserialisation would change.
pub const TOOLS: &str = "{\"jsonrpc\" : \"2.0\",\"id\":1,\"result\":{\"tools\":[ ],\"n\":1.50}}";

/// A server that answers as the name of the tool, the prompt or the URI says.
pub fn server() -> Origin {
    Origin::scripted(answer)
}

/// What the server is asked.
pub fn asked(seen: &Seen) -> Value {
    serde_json::from_slice(&seen.body).unwrap_or_default()
}

/// A whole answer.
pub fn reply(socket: &mut TcpStream, kind: &str, body: &str) -> bool {
    let length = body.len();
    write!(socket, "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}").is_ok()
}

/// The head of an event stream, which ends with its connection.
pub fn begin_events(socket: &mut TcpStream) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    socket.write_all(head.as_bytes()).unwrap();
}

/// The result of a call.
pub fn result_of(id: &Value, name: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":"secret {name}"}}],"n":1.50}}}}"#
    )
}

pub fn answer(seen: &Seen, socket: &mut TcpStream) -> bool {
    let asked = asked(seen);
    let (id, params) = (&asked["id"], &asked["params"]);
    let json = |socket: &mut TcpStream, body: &str| reply(socket, "application/json", body);
    let Some(name) = params["name"].as_str().or(params["uri"].as_str()) else {
        return match asked["method"].as_str() {
            Some("tools/list") => json(socket, TOOLS),
            Some(_) if id.is_null() => write!(socket, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").is_ok(),
            _ => json(socket, &result_of(id, "anything")),
        };
    };
    let result = result_of(id, name);
    match name {
        "is-error" => json(socket, &result.replace("\"n\"", "\"isError\":true,\"n\"")),
        "rpc-error" => {
            json(socket, &format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32602,"message":"no"}}}}"#))
        }
        "input-required" => json(socket, &result.replace("\"n\"", "\"resultType\":\"input_required\",\"n\"")),
        // As Go and .NET write what they read in any case.
        "error-case" => json(socket, &result.replace("\"n\"", "\"IsError\":true,\"n\"")),
        "type-case" => json(socket, &result.replace("\"n\"", "\"ResultType\":\"input_required\",\"n\"")),
        "meta-case" => json(socket, &result.replace("\"n\"", "\"_Meta\":{},\"n\"")),
        "receipt-case" => json(socket, &result.replace("\"n\"", "\"_meta\":{\"X402/Payment-Response\":{}},\"n\"")),
        "task" => json(socket, &result.replace("\"n\"", "\"task\":{\"taskId\":\"t1\"},\"n\"")),
        "task-type" => json(socket, &result.replace("\"n\"", "\"resultType\":\"task\",\"taskId\":\"t1\",\"n\"")),
        "own-receipt" => {
            json(socket, &result.replace("\"n\"", "\"_meta\":{\"x402/payment-response\":1,\"t\":2},\"n\""))
        }
        "other-id" => json(socket, &result_of(&json!("another"), name)),
        "both" => json(socket, &result.replace("\"result\"", "\"error\":{},\"result\"")),
        "html" => reply(socket, "text/html", &result),
        "accepted" => write!(socket, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").is_ok(),
        "fails" => write!(socket, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n").is_ok(),
        "big" => json(socket, &result.replace("secret", &"secret ".repeat(2000))),
        "gzip" => {
            let length = result.len();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n";
            write!(socket, "{head}Content-Length: {length}\r\n\r\n{result}").is_ok()
        }
        "chunked" => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
            let (a, b) = result.split_at(20);
            write!(socket, "{head}{:x}\r\n{a}\r\n{:x}\r\n{b}\r\n0\r\n\r\n", a.len(), b.len()).is_ok()
        }
        name if name.starts_with("events") => {
            begin_events(socket);
            let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}});
            let begin = ": hello\r\n\r\nid: 1\r\ndata: {progress}\r\n\r\nid: 0\r\ndata: \r\ndata:  \r\n\r\n";
            write!(socket, "{}", begin.replace("{progress}", &progress.to_string())).unwrap();
            let event = |text: &str| format!("event: message\r\nid: 2\r\ndata: {text}\r\n\r\n");
            let last = match name {
                "events-cut" => event(&result).trim_end().to_owned(),
                "events-none" => String::new(),
                "events-is-error" => event(&result.replace("\"n\"", "\"isError\":true,\"n\"")),
                "events-big" => event(&result.replace("secret", &"secret ".repeat(2000))),
                // No JSON, but some clients read it all the same.
                "events-nan" => event(&result.replace("1.50", "NaN")),
                "events-infinity" => event(&result.replace("1.50", "-Infinity")),
                "events-mark" => event(&format!("\u{feff}{result}")),
                "events-comma" => event(&result.replace("1.50", "1.50,")),
                "events-text" => event(&Value::from(&*result).to_string()),
                "events-batch" => event(&format!("[{result}]")),
                "events-lines" => event(&result.replace(",\"result\"", ",\r\ndata: \"result\"")),
                _ => event(&result),
            };
            let _ = write!(socket, "{last}");
            if name == "events" {
                let _ = write!(socket, "data: {progress}\n\n");
            }
            false
        }
        _ => json(socket, &result),
    }
}

/// A request with this body.
pub fn post(gateway: SocketAddr, fields: &str, body: &str) -> Answer {
    exchange(gateway, head(gateway, fields, body))
}

pub fn head(gateway: SocketAddr, fields: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /mcp HTTP/1.1\r\nHost: {gateway}\r\nContent-Type: application/json\r\nAccept: application/json, \
         text/event-stream\r\nContent-Length: {length}\r\nConnection: close\r\n{fields}\r\n{body}"
    )
}

/// A call of a tool.
pub fn call(name: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": {"a": 2}}})
}

/// The same with a payment.
pub fn paid(call: &Value, payment: &Value) -> Value {
    let mut call = call.clone();
    call["params"]["_meta"]["x402/payment"] = payment.clone();
    call
}

/// The offer in a result.
pub fn offer(answer: &Answer) -> Value {
    let said = answer.json();
    let result = &said["result"];
    assert_eq!((answer.status, &result["isError"]), (200, &json!(true)), "{answer:?}");
    let copy: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(copy, result["structuredContent"]);
    assert_eq!(result["structuredContent"]["x402Version"], 2, "{said}");
    result["structuredContent"].clone()
}

/// The messages of an answer: its events, or itself.
pub fn messages(answer: &Answer) -> Vec<Value> {
    if answer.header("content-type") != Some("text/event-stream") {
        return vec![answer.json()];
    }
    let text = answer.text().replace("\r\n", "\n");
    let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| !data.trim().is_empty());
    data.map(|json| serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {text}"))).collect()
}

/// The answer to the call: the message with a result or an error.
pub fn answer_of(answer: &Answer) -> Value {
    let mut messages = messages(answer);
    messages.retain(|message| message.get("result").is_some() || message.get("error").is_some());
    assert_eq!(messages.len(), 1, "{}", answer.text());
    messages.remove(0)
}

/// Asks, signs the offer, asks again with the payment in the body.
pub fn buy(wallet: &Wallet, gateway: SocketAddr, call: &Value) -> Answer {
    let offer = offer(&post(gateway, "", &call.to_string()));
    let payment = wallet.sign(&wallet.draft_from(&offer));
    post(gateway, "", &paid(call, &payment).to_string())
}

/// A gateway before an MCP server: tools at 0.01 USD, `dear` at 1 USD, `free` for nothing, prompts and `memo://` resources
/// at 0.02 USD, for tokens and on credit. `more` are further sections.
pub fn shop_toml(server: &Origin, facilitator: &Facilitator, agent: &str, more: &str) -> String {
    let route = |selector: &str, price: &str| {
        format!(
            "[[routes]]\npath = \"/mcp/*\"\n{selector}\nprice = \"{price}\"\n{}",
            if price == "free" { "" } else { "accept = [\"exact\", \"deferred\"]\n" }
        )
    };
    let routes = [
        route("tool = \"*\"", "0.01 USD"),
        route("tool = \"dear\"", "1 USD"),
        route("tool = \"free\"", "free"),
        route("prompt = \"*\"", "0.02 USD"),
        route("resource = \"memo://*\"", "0.02 USD"),
    ];
    format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
cores = 2
drain_seconds = 2
[origin]
url = "http://{origin}"
[facilitators.ours]
url = "{facilitator}"
[[exact.assets]]
network = "base-sepolia"
pay_to = "{PAY_TO}"
[[accounts]]
name = "acme"
agents = ["{agent}"]
credit = "1000 USD"
{routes}
{more}"#,
        origin = server.addr,
        facilitator = facilitator.url(),
        routes = routes.concat(),
    )
}

/// Starts it.
pub fn shop(server: &Origin, facilitator: &Facilitator) -> Gateway {
    Gateway::start(&shop_toml(server, facilitator, "https://signer.example", ""))
}
