//! Streams while they run: what passes, who leaves when.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use tollgate::wire::evm::u256::U256;

use crate::support::agent::now;
use crate::support::client::{Connection, exchange};
use crate::support::facilitator::{Behaviour, Facilitator, Gate};
use crate::support::gateway::tollgate;
use crate::support::mcp::{
    answer_of, asked, begin_events, call, head, offer, paid, post, reply, result_of, shop, shop_toml,
};
use crate::support::wallet::Wallet;
use crate::support::*;

/// A server that sends progress, and the result when it is told to; it says when its client has gone.
fn slow_server() -> (Origin, Sender<()>, Receiver<()>) {
    let (tell, told) = channel::<()>();
    let (gone, left) = channel::<()>();
    let (told, gone) = (Mutex::new(told), Mutex::new(gone));
    let server = Origin::scripted(move |seen, socket| {
        begin_events(socket);
        let progress = json!({"method": "notifications/progress"});
        let _ = write!(socket, "data: {progress}\n\n");
        if told.lock().unwrap().recv().is_err() {
            return false;
        }
        let result = result_of(&asked(seen)["id"], "slow");
        if write!(socket, "data: {result}\n\n").is_err() || socket.read(&mut [0]).is_ok_and(|n| n == 0) {
            let _ = gone.lock().unwrap().send(());
        }
        false
    });
    (server, tell, left)
}

fn payment(wallet: &Wallet, gateway: SocketAddr, call: &Value) -> Value {
    wallet.sign(&wallet.draft_from(&offer(&post(gateway, "", &call.to_string()))))
}

/// Reads until these bytes have come.
fn read_until(connection: &mut Connection, wanted: &str) -> String {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(wanted) {
        let mut bytes = [0; 512];
        let n = connection.reader.read(&mut bytes).unwrap();
        assert!(n > 0, "{}", String::from_utf8_lossy(&text));
        text.extend(&bytes[..n]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn events_pass_while_the_call_runs() {
    let (server, tell, _left) = slow_server();
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let gateway = shop(&server, &facilitator);
    let call = call("slow");
    let body = paid(&call, &payment(&wallet, gateway.addr, &call)).to_string();
    let mut connection = Connection::open(gateway.addr);
    connection.write(head(gateway.addr, "", &body));
    // The server does not go on before this has arrived.
    let begun = read_until(&mut connection, "notifications/progress");
    assert!(begun.starts_with("HTTP/1.1 200 OK") && !begun.contains("secret"), "{begun}");
    assert_eq!(facilitator.count("/settle"), 0);
    tell.send(()).unwrap();
    read_until(&mut connection, "x402/payment-response");
    assert_eq!(facilitator.count("/settle"), 1);
}

#[test]
fn a_client_that_leaves_before_the_result_cancels_the_call_and_keeps_its_payment() {
    let (server, tell, left) = slow_server();
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let gateway = shop(&server, &facilitator);
    let call = call("slow");
    let body = paid(&call, &payment(&wallet, gateway.addr, &call)).to_string();
    let mut connection = Connection::open(gateway.addr);
    connection.write(head(gateway.addr, "", &body));
    read_until(&mut connection, "notifications/progress");
    drop(connection);
    // In flight until the gateway has seen that it left.
    let waits = || loop {
        let mut connection = Connection::open(gateway.addr);
        connection.write(head(gateway.addr, "", &body));
        let text = read_until(&mut connection, "data");
        if text.contains("notifications/progress") {
            break connection;
        }
        assert!(text.contains("payment_in_flight"), "{text}");
        std::thread::yield_now();
    };
    let mut connection = waits();
    tell.send(()).unwrap();
    left.recv_timeout(crate::support::client::PATIENCE).unwrap();
    assert_eq!(facilitator.count("/settle"), 0);
    tell.send(()).unwrap();
    read_until(&mut connection, "x402/payment-response");
    assert_eq!((server.calls(), facilitator.count("/settle")), (2, 1));
    let (_, dir) = gateway.stop();
    assert_eq!(Books::read(dir.path()).captures.len(), 1);
}

/// The money moves although nobody waits any more; the very call fetches what it bought, once.
#[test]
fn a_client_that_leaves_during_the_settlement_is_owed_its_result() {
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let server = crate::support::mcp::server();
    let gateway = shop(&server, &facilitator);
    let gate = Gate::default();
    facilitator.next("/settle", Behaviour::Held(gate.clone(), Box::new(Behaviour::Good)));
    let call = call("events-only");
    let payment = payment(&wallet, gateway.addr, &call);
    let body = paid(&call, &payment).to_string();
    let mut connection = Connection::open(gateway.addr);
    connection.write(head(gateway.addr, "", &body));
    facilitator.arrived("/settle", 1);
    drop(connection);
    // Whoever else comes with this payment meets a claim until the gateway has seen that its client left, then a doubt.
    let mut other = call.clone();
    other["params"]["arguments"]["a"] = json!(3);
    let other = paid(&other, &payment).to_string();
    let reason = |body: &str| {
        let answer = post(gateway.addr, "", body);
        let reason = answer_of(&answer)["error"]["data"]["reason"].as_str().unwrap_or_default().to_owned();
        (reason, answer)
    };
    gate.open();
    let refused = loop {
        let (reason, answer) = reason(&other);
        assert!(!answer.text().contains("secret"), "{answer:?}");
        if !["payment_in_flight", "settlement_pending"].contains(&&*reason) {
            break reason;
        }
        std::thread::yield_now();
    };
    assert_eq!(refused, "payment_already_used");
    let (_, answer) = reason(&body);
    assert!(answer.text().contains("secret"), "{answer:?}");
    assert_eq!(answer_of(&answer)["result"]["_meta"]["x402/payment-response"]["success"], true);
    assert_eq!((server.calls(), server.last().header("tollgate-attempt")), (2, Some("2")));
    assert_eq!(reason(&body).0, "payment_already_used");
    assert_eq!((server.calls(), facilitator.count("/settle")), (2, 1));
}

/// The authorisation ends 15 s from now, and a settlement needs 10 of them.
#[test]
fn a_result_that_comes_too_late_to_be_paid_is_not_waited_for() {
    let (server, _tell, _left) = slow_server();
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let toml = shop_toml(&server, &facilitator, "https://signer.example", "");
    let gateway = Gateway::start(&toml.replace("[origin]\n", "[origin]\nhead_seconds = 1\n"));
    let call = call("slow");
    let mut draft = wallet.draft_from(&offer(&post(gateway.addr, "", &call.to_string())));
    draft.authorization.valid_before = U256::from(now() as u64 + 15);
    let answer = post(gateway.addr, "", &paid(&call, &wallet.sign(&draft)).to_string());
    assert!(answer.text().contains("notifications/progress"), "{answer:?}");
    assert_eq!(answer_of(&answer)["error"]["data"]["reason"], "origin_timeout", "{answer:?}");
    assert_eq!((server.calls(), facilitator.count("/settle")), (1, 0));
}

/// Payments that end too soon cost the server a run each, and nobody is paid.
#[test]
fn a_payer_whose_calls_end_with_their_payments_is_throttled() {
    let server = Origin::scripted(|seen, socket| {
        if asked(seen)["params"]["name"] != "slow" {
            return crate::support::mcp::answer(seen, socket);
        }
        begin_events(socket);
        let _ = write!(socket, ": working\n\n");
        // Until the gateway gives it up.
        let _ = socket.read(&mut [0]);
        false
    });
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let toml = shop_toml(&server, &facilitator, "https://signer.example", "");
    let gateway = Gateway::start(&toml.replace("[origin]\n", "[origin]\nhead_seconds = 1\n"));
    let (slow, add) = (call("slow"), call("add"));
    let offer_of = |call: &Value| offer(&post(gateway.addr, "", &call.to_string()));
    let (slow_offer, add_offer) = (offer_of(&slow), offer_of(&add));
    let last = wallet.sign(&wallet.draft_from(&add_offer));
    std::thread::scope(|scope| {
        // 120 are too many; those that end later keep it so, for two a second are forgotten.
        let calls: Vec<_> = (0..200)
            .map(|i| {
                let mut draft = wallet.draft_from(&slow_offer);
                draft.authorization.valid_before = U256::from(now() as u64 + 15 + i / 140);
                let body = paid(&slow, &wallet.sign(&draft)).to_string();
                scope.spawn(move || post(gateway.addr, "", &body))
            })
            .collect();
        let mut calls = calls.into_iter().map(|call| call.join().unwrap());
        for answer in calls.by_ref().take(140) {
            assert_eq!(answer_of(&answer)["error"]["data"]["reason"], "origin_timeout", "{answer:?}");
        }
        let answer = post(gateway.addr, "", &paid(&add, &last).to_string());
        assert_eq!(answer_of(&answer)["error"]["data"]["reason"], "too_many_claims", "{answer:?}");
        calls.for_each(drop);
    });
    assert_eq!((server.calls(), facilitator.count("/settle")), (200, 0));
    let other = crate::support::mcp::buy(&Wallet::new(), gateway.addr, &add);
    assert!(other.text().contains("secret"), "{other:?}");
}

#[test]
fn a_crash_after_the_capture_leaves_a_result_that_the_same_call_fetches_once() {
    let calls = AtomicUsize::new(0);
    let server = Origin::scripted(move |seen, socket| {
        let result = result_of(&asked(seen)["id"], "slow");
        if calls.fetch_add(1, Ordering::Relaxed) > 0 {
            return reply(socket, "application/json", &result);
        }
        begin_events(socket);
        write!(socket, "data: {result}\n\n").unwrap();
        // Until the gateway is gone.
        let _ = socket.read(&mut [0]);
        false
    });
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let toml = shop_toml(&server, &facilitator, "https://signer.example", "");
    let gateway = Gateway::start(&toml);
    let host = gateway.addr;
    let mut call = call("slow");
    let payment = payment(&wallet, host, &call);
    let mut connection = Connection::open(host);
    connection.write(head(host, "", &paid(&call, &payment).to_string()));
    facilitator.arrived("/settle", 1);
    let captured = "SELECT count(*) FROM entries WHERE kind = 1";
    let sql = rusqlite::Connection::open(gateway.dir.path().join("tollgate.sqlite")).unwrap();
    while sql.query_row(captured, (), |row| row.get::<_, i64>(0)).unwrap() == 0 {
        std::thread::yield_now();
    }
    drop(sql);
    let gateway = Gateway::start_in(gateway.kill(), &toml);
    call["id"] = json!("again");
    // Ids are sealed for a host, whose port is another one now.
    let send = |body: &Value| {
        let request = head(gateway.addr, "", &body.to_string());
        exchange(gateway.addr, request.replace(&format!("Host: {}", gateway.addr), &format!("Host: {host}")))
    };
    let mut other = call.clone();
    other["params"]["arguments"]["a"] = json!(3);
    assert_eq!(send(&paid(&other, &payment)).json()["error"]["data"]["reason"], "payment_already_used");
    let answer = send(&paid(&call, &payment));
    assert_eq!(answer.json()["result"]["_meta"]["x402/payment-response"]["success"], true, "{answer:?}");
    assert_eq!((server.calls(), server.last().header("tollgate-attempt")), (2, Some("2")));
    assert_eq!(send(&paid(&call, &payment)).json()["error"]["data"]["reason"], "payment_already_used");
    assert_eq!((server.calls(), facilitator.count("/settle")), (2, 1));
}

/// A server that breaks its first stream off behind the result, when it is told to, and says so.
fn cutting_server() -> (Origin, Sender<()>, Receiver<()>) {
    let ((tell, told), (cut, is_cut)) = (channel::<()>(), channel::<()>());
    let (told, cut) = (Mutex::new(told), Mutex::new(cut));
    let calls = AtomicUsize::new(0);
    let server = Origin::scripted(move |seen, socket| {
        let event = format!("data: {}\n\n", result_of(&asked(seen)["id"], "cut"));
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        let _ = write!(socket, "{head}{:x}\r\n{event}\r\n", event.len());
        if calls.fetch_add(1, Ordering::Relaxed) > 0 {
            let _ = socket.write_all(b"0\r\n\r\n");
            return false;
        }
        let _ = told.lock().unwrap().recv();
        let _ = socket.shutdown(std::net::Shutdown::Both);
        let _ = cut.lock().unwrap().send(());
        false
    });
    (server, tell, is_cut)
}

/// Reads until the gateway ends the connection.
fn read_rest(connection: &mut Connection) -> String {
    let mut text = Vec::new();
    let _ = connection.reader.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// What is in the books of one call: the capture with its state and outcome, and what else came of it.
fn postings(gateway: Gateway) -> Vec<String> {
    let (_, dir) = gateway.stop();
    let ledger = |args: &[&str]| {
        let (code, out, err) = tollgate(dir.path(), &[&["ledger"], args, &["--ledger", "tollgate.sqlite"]].concat());
        assert_eq!(code, 0, "{out}{err}");
        out
    };
    ledger(&["audit"]);
    let rows = ledger(&["list", "--json"]);
    let said = rows.lines().map(|row| serde_json::from_str::<Value>(row).unwrap()).map(|row| {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        if text("kind") != "capture" {
            return text("kind");
        }
        let is_cut = ledger(&["show", &text("n")]).contains("origin_cut");
        format!("capture, {}{}", text("state"), if is_cut { ", origin_cut" } else { "" })
    });
    said.filter(|kind| kind != "intent").collect()
}

#[test]
fn a_cut_after_the_result_leaves_a_call_on_credit_charged() {
    let (server, tell, _cut) = cutting_server();
    let (facilitator, agent) = (Facilitator::start(), Agent::start());
    let gateway = Gateway::start(&shop_toml(&server, &facilitator, &agent.url, ""));
    let body = call("cut").to_string();
    let offer = offer(&post(gateway.addr, "", &body));
    let entry = offer["accepts"].as_array().unwrap().iter().find(|entry| entry["scheme"] == "deferred").unwrap();
    let signed = agent.signed(&gateway.addr.to_string(), "POST", "/mcp", entry["extra"]["id"].as_str().unwrap());
    let fields: String = signed.fields().iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut connection = Connection::open(gateway.addr);
    connection.write(head(gateway.addr, &fields, &body));
    assert!(read_until(&mut connection, "x402/payment-response").contains("secret"));
    tell.send(()).unwrap();
    read_rest(&mut connection);
    assert_eq!(postings(gateway), ["capture, delivered, origin_cut"], "delivered, and reversed");
}

#[test]
fn a_cut_after_the_result_is_not_served_a_second_time() {
    let (server, tell, _cut) = cutting_server();
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let gateway = shop(&server, &facilitator);
    let call = call("cut");
    let body = paid(&call, &payment(&wallet, gateway.addr, &call)).to_string();
    let mut connection = Connection::open(gateway.addr);
    connection.write(head(gateway.addr, "", &body));
    assert!(read_until(&mut connection, "x402/payment-response").contains("secret"));
    tell.send(()).unwrap();
    read_rest(&mut connection);
    let again = post(gateway.addr, "", &body);
    assert_eq!(answer_of(&again)["error"]["data"]["reason"], "payment_already_used", "{again:?}");
    assert_eq!((server.calls(), facilitator.count("/settle")), (1, 1));
    assert_eq!(postings(gateway), ["capture, delivered, origin_cut"]);
}

/// Sends a paid call until it has been served, counting the first answer, and once more.
fn served_once(gateway: SocketAddr, body: &str, first: &str) {
    let is_served = |text: &str| text.contains("secret");
    let mut served = is_served(first);
    // What a cut leaves is owed once the books have it.
    let until = std::time::Instant::now() + crate::support::client::PATIENCE;
    while !served {
        served = is_served(&post(gateway, "", body).text());
        assert!(served || std::time::Instant::now() < until, "paid, and never served: {first}");
    }
    let again = post(gateway, "", body);
    assert_eq!(answer_of(&again)["error"]["data"]["reason"], "payment_already_used", "{again:?}");
}

/// The HTTP layer drops what it has not written when a body breaks off.
#[test]
fn a_cut_during_the_settlement_leaves_a_result_that_is_served_once() {
    let (server, tell, cut) = cutting_server();
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let gateway = shop(&server, &facilitator);
    let gate = Gate::default();
    facilitator.next("/settle", Behaviour::Held(gate.clone(), Box::new(Behaviour::Good)));
    let call = call("cut");
    let body = paid(&call, &payment(&wallet, gateway.addr, &call)).to_string();
    let mut connection = Connection::open(gateway.addr);
    connection.write(head(gateway.addr, "", &body));
    facilitator.arrived("/settle", 1);
    tell.send(()).unwrap();
    cut.recv().unwrap();
    gate.open();
    let first = read_rest(&mut connection);
    served_once(gateway.addr, &body, &first);
    assert_eq!(facilitator.count("/settle"), 1);
}

/// The same where answers share a connection.
#[tokio::test]
async fn a_cut_during_the_settlement_leaves_a_result_over_http_2_too() {
    let (server, tell, cut) = cutting_server();
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let gateway = shop(&server, &facilitator);
    let gate = Gate::default();
    facilitator.next("/settle", Behaviour::Held(gate.clone(), Box::new(Behaviour::Good)));
    let call = call("cut");
    let body = paid(&call, &payment(&wallet, gateway.addr, &call)).to_string();
    let mut answer = send_h2(gateway.addr, &body).await.into_body();
    facilitator.arrived("/settle", 1);
    tell.send(()).unwrap();
    cut.recv().unwrap();
    gate.open();
    let mut first = Vec::new();
    while let Some(Ok(frame)) = answer.frame().await {
        first.extend(frame.into_data().unwrap_or_default());
    }
    let first = String::from_utf8(first).unwrap();
    served_once(gateway.addr, &body, &first);
    assert_eq!(facilitator.count("/settle"), 1);
}

/// Sends a call over HTTP/2.
async fn send_h2(gateway: SocketAddr, body: &str) -> http::Response<hyper::body::Incoming> {
    let socket = tokio::net::TcpStream::connect(gateway).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://{gateway}/mcp")).header("content-type", "application/json");
    sender.send_request(request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_stream_is_bought_over_http_2() {
    let (server, facilitator, wallet) = (crate::support::mcp::server(), Facilitator::start(), Wallet::new());
    let gateway = shop(&server, &facilitator);
    let call = call("events");
    let body = paid(&call, &payment(&wallet, gateway.addr, &call)).to_string();
    let answer = send_h2(gateway.addr, &body).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    let text = String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    assert!(text.contains("secret events") && text.contains("x402/payment-response"), "{text}");
    let (_, dir) = gateway.stop();
    let books = Books::read(dir.path());
    assert_eq!((books.captures.len(), books.voids.len()), (1, 0), "{books:?}");
}

#[test]
fn a_connection_goes_on_after_a_bought_stream() {
    let (server, facilitator, wallet) = (crate::support::mcp::server(), Facilitator::start(), Wallet::new());
    let gateway = shop(&server, &facilitator);
    let call = call("events");
    let body = paid(&call, &payment(&wallet, gateway.addr, &call)).to_string();
    let request = head(gateway.addr, "", &body).replace("Connection: close\r\n", "");
    let mut connection = Connection::open(gateway.addr);
    let bought = connection.send(request).unwrap();
    assert_eq!(answer_of(&bought)["result"]["_meta"]["x402/payment-response"]["success"], true, "{bought:?}");
    // The connection goes on.
    assert_eq!(connection.send(head(gateway.addr, "", &call.to_string())).unwrap().status, 200);
    let free = format!("GET /other HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", gateway.addr);
    assert_eq!(exchange(gateway.addr, free).status, 200);
}
