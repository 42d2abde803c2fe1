//! Calls that are not charged, and payments that buy nothing.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::client::exchange;
use crate::support::facilitator::{Behaviour, Facilitator};
use crate::support::gateway::tollgate;
use crate::support::mcp::{
    answer, answer_of, asked, buy, call, head, offer, paid, post, reply, result_of, server, shop, shop_toml,
};
use crate::support::wallet::Wallet;
use crate::support::*;

#[test]
fn what_is_no_success_passes_and_is_not_charged() {
    let (server, facilitator, wallet) = (server(), Facilitator::start(), Wallet::new());
    let gateway = shop(&server, &facilitator);
    for (name, status, passes) in [
        ("is-error", 200, "secret is-error"),
        ("rpc-error", 200, "-32602"),
        ("input-required", 200, "input_required"),
        ("fails", 500, ""),
        ("accepted", 202, ""),
        ("events-is-error", 200, "isError"),
    ] {
        let answer = buy(&wallet, gateway.addr, &call(name));
        assert_eq!((answer.status, answer.text().contains(passes)), (status, true), "{name}: {answer:?}");
        assert!(!answer.text().contains("payment-response") && answer.header("payment-response").is_none(), "{name}");
    }
    assert_eq!((facilitator.count("/verify"), facilitator.count("/settle")), (6, 0));
    let (_, dir) = gateway.stop();
    let books = Books::read(dir.path());
    assert_eq!((books.captures.len(), books.intents), (0, 0), "{books:?}");
}

/// A call that asks its user for more may do so more often than an attempt may fail.
#[test]
fn a_payment_that_bought_nothing_pays_the_next_call() {
    let calls = AtomicUsize::new(0);
    let server = Origin::scripted(move |seen, socket| {
        let asked = asked(seen);
        let result = result_of(&asked["id"], "form");
        let more = result.replace("\"n\"", "\"resultType\":\"input_required\",\"n\"");
        let is_last = calls.fetch_add(1, Ordering::Relaxed) == 5;
        reply(socket, "application/json", if is_last { &result } else { &more })
    });
    let (facilitator, wallet) = (Facilitator::start(), Wallet::new());
    let gateway = shop(&server, &facilitator);
    let mut form = call("form");
    let payment = wallet.sign(&wallet.draft_from(&offer(&post(gateway.addr, "", &form.to_string()))));
    for i in 0..6 {
        form["id"] = json!(i);
        let answer = post(gateway.addr, "", &paid(&form, &payment).to_string()).json();
        let result = &answer["result"];
        assert_eq!(result["resultType"] == "input_required", i < 5, "{answer}");
        assert_eq!(result["_meta"]["x402/payment-response"]["success"] == true, i == 5, "{answer}");
    }
    assert_eq!(facilitator.count("/settle"), 1);
}

#[test]
fn an_answer_that_cannot_be_judged_does_not_pass() {
    let (server, facilitator, wallet) = (server(), Facilitator::start(), Wallet::new());
    let more = "[mcp]\nanswer_bytes = 4096\n";
    let gateway = Gateway::start(&shop_toml(&server, &facilitator, "https://signer.example", more));
    let names = [
        "other-id",
        "both",
        "html",
        "big",
        "gzip",
        "task",
        "task-type",
        "error-case",
        "type-case",
        "meta-case",
        "receipt-case",
        "events-cut",
        "events-none",
        "events-big",
        "events-batch",
        "events-nan",
        "events-infinity",
        "events-mark",
        "events-comma",
        "events-text",
    ];
    for (i, name) in names.iter().enumerate() {
        let answer = buy(&wallet, gateway.addr, &call(name));
        let told = answer_of(&answer);
        assert_eq!(
            (answer.status, &told["error"]["data"]["reason"]),
            (200, &json!("origin_invalid")),
            "{name}: {told}"
        );
        assert_eq!(told["id"], 1);
        assert!(!answer.text().contains("secret"), "{name}: {}", answer.text());
        assert_eq!((server.calls(), facilitator.count("/settle")), (i + 1, 0));
    }
    // What is judged may come in any framing.
    let answer = buy(&wallet, gateway.addr, &call("chunked"));
    assert_eq!(answer.json()["result"]["_meta"]["x402/payment-response"]["success"], true, "{answer:?}");
    let answer = buy(&wallet, gateway.addr, &call("own-receipt"));
    let meta = answer.json()["result"]["_meta"].clone();
    assert_eq!((&meta["x402/payment-response"]["success"], &meta["t"]), (&json!(true), &json!(2)), "{meta}");
    let (_, dir) = gateway.stop();
    assert_eq!(Books::read(dir.path()).captures.len(), 2);
}

#[test]
fn a_settlement_that_fails_gives_the_payment_error_instead_of_the_content() {
    let (server, facilitator, wallet) = (server(), Facilitator::start(), Wallet::new());
    let gateway = shop(&server, &facilitator);
    for name in ["add", "events"] {
        facilitator.next("/settle", Behaviour::Refused("insufficient_funds"));
        let answer = buy(&wallet, gateway.addr, &call(name));
        let told = answer_of(&answer);
        let result = &told["result"];
        assert_eq!(
            (&result["isError"], &result["structuredContent"]["error"]),
            (&json!(true), &json!("insufficient_funds"))
        );
        assert_eq!(result["_meta"]["x402/payment-response"]["success"], false, "{told}");
        assert!(!answer.text().contains("secret"), "{}", answer.text());
        facilitator.next("/verify", Behaviour::Invalid("insufficient_funds"));
        let answer = buy(&wallet, gateway.addr, &call(name));
        assert_eq!(offer(&answer)["error"], "insufficient_funds");
    }
    assert_eq!((server.calls(), facilitator.count("/settle")), (2, 2));
    let (_, dir) = gateway.stop();
    let books = Books::read(dir.path());
    assert_eq!((books.captures.len(), books.failed), (0, 2), "{books:?}");
}

/// The same payment, call and arguments get what was paid for; nobody is asked to pay once more.
#[test]
fn a_payment_in_doubt_is_an_error_that_nobody_pays_on_and_is_redeemed_by_the_same_call() {
    for name in ["add", "events"] {
        let (server, facilitator, wallet) = (server(), Facilitator::start(), Wallet::new());
        let gateway = shop(&server, &facilitator);
        facilitator.next("/settle", Behaviour::Pending(200));
        facilitator.next("/settle", Behaviour::Pending(200));
        let mut call = call(name);
        let payment = wallet.sign(&wallet.draft_from(&offer(&post(gateway.addr, "", &call.to_string()))));
        let answer = post(gateway.addr, "", &paid(&call, &payment).to_string());
        let error = answer_of(&answer)["error"].clone();
        assert_eq!(
            (&error["code"], &error["data"]["reason"]),
            (&json!(-32000), &json!("settlement_pending")),
            "{answer:?}"
        );
        assert!(error["data"]["retryAfter"].is_u64() && !answer.text().contains("accepts"));
        assert!(!answer.text().contains("secret"));
        let other = buy(&wallet, gateway.addr, &call);
        assert_eq!(answer_of(&other)["error"]["data"]["reason"], "payment_unresolved", "{other:?}");
        // Seen on the chain by somebody else, who wants something else for it.
        let mut dearer = call.clone();
        dearer["params"]["arguments"]["a"] = json!(3);
        let stolen = post(gateway.addr, "", &paid(&dearer, &payment).to_string());
        assert_eq!(answer_of(&stolen)["error"]["data"]["reason"], "settlement_pending", "{stolen:?}");
        assert_eq!((server.calls(), facilitator.count("/settle")), (1, 2));
        call["id"] = json!("again");
        let answer = post(gateway.addr, "", &paid(&call, &payment).to_string());
        let told = answer_of(&answer);
        assert_eq!(
            (&told["id"], &told["result"]["_meta"]["x402/payment-response"]["success"]),
            (&json!("again"), &json!(true))
        );
        assert_eq!((server.calls(), server.last().header("tollgate-attempt")), (2, Some("2")));
        let (_, dir) = gateway.stop();
        let (code, rows, err) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
        let count = |kind: &str| rows.matches(&format!("\"{kind}\"")).count();
        assert_eq!((code, count("capture"), count("intent"), count("redelivered")), (0, 1, 1, 1), "{rows}{err}");
        let (code, out, err) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
        assert_eq!(code, 0, "{out}{err}");
    }
}

/// A part would be a success to the server, and hold all that was called for.
#[test]
fn a_paid_call_is_asked_for_whole() {
    let (server, facilitator, wallet) = (server(), Facilitator::start(), Wallet::new());
    let gateway = shop(&server, &facilitator);
    let fields = "Range: bytes=0-\r\nIf-Range: \"a\"\r\n";
    let call = call("add");
    let payment = wallet.sign(&wallet.draft_from(&offer(&post(gateway.addr, fields, &call.to_string()))));
    let bought = post(gateway.addr, fields, &paid(&call, &payment).to_string());
    assert!(bought.text().contains("secret"), "{bought:?}");
    let seen = server.last();
    assert!(!seen.has("range") && !seen.has("if-range"), "{seen:?}");
}

/// Arguments in another order are another text to the gateway and the same call to the server.
#[test]
fn a_tool_whose_payment_is_in_doubt_is_not_sold_to_its_payer_again() {
    let (server, facilitator, wallet) = (server(), Facilitator::start(), Wallet::new());
    let toml = shop_toml(&server, &facilitator, "https://signer.example", "")
        .replace("[server]", "[server]\npublic_url = \"http://shop.example\"");
    let mut gateway = Gateway::start(&toml);
    facilitator.next("/settle", Behaviour::Pending(200));
    facilitator.next("/settle", Behaviour::Pending(200));
    let send = |gateway: &Gateway, body: &str| {
        let request = head(gateway.addr, "", body);
        exchange(gateway.addr, request.replace(&format!("Host: {}", gateway.addr), "Host: shop.example"))
    };
    let text = |name: &str, arguments: &str, payment: &Value| {
        let meta = json!({"x402/payment": payment});
        format!(
            r#"{{"id":1,"method":"tools/call","params":{{"name":"{name}","arguments":{arguments},"_meta":{meta}}}}}"#
        )
    };
    let sign = |gateway: &Gateway, name: &str| {
        wallet.sign(&wallet.draft_from(&offer(&send(gateway, &call(name).to_string()))))
    };
    let first = text("add", r#"{"a":1,"b":2}"#, &sign(&gateway, "add"));
    let reason = |answer: &Answer| answer_of(answer)["error"]["data"]["reason"].as_str().unwrap_or("none").to_owned();
    assert_eq!(reason(&send(&gateway, &first)), "settlement_pending");
    for restarted in [false, true] {
        if restarted {
            gateway = Gateway::start_in(gateway.kill(), &toml);
        }
        for arguments in [r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#] {
            let again = send(&gateway, &text("add", arguments, &sign(&gateway, "add")));
            assert_eq!(reason(&again), "payment_unresolved", "{restarted} {arguments}: {again:?}");
        }
        assert_eq!(
            (server.calls(), facilitator.count("/settle")),
            (1 + usize::from(restarted), 2 + usize::from(restarted))
        );
        // Another tool is another purchase.
        let name = format!("other;sha256={restarted}");
        let other = send(&gateway, &text(&name, "{}", &sign(&gateway, &name)));
        assert!(other.text().contains("secret"), "{other:?}");
    }
    // It is redeemed by the call as it was written, and by no other.
    let other = first.replace(r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#);
    assert_eq!(reason(&send(&gateway, &other)), "settlement_pending");
    assert!(send(&gateway, &first).text().contains("secret"));
}

#[test]
fn a_spent_payment_is_an_error_with_its_receipt() {
    let (server, facilitator, wallet) = (server(), Facilitator::start(), Wallet::new());
    let gateway = shop(&server, &facilitator);
    let call = call("add");
    let payment = wallet.sign(&wallet.draft_from(&offer(&post(gateway.addr, "", &call.to_string()))));
    let bought = post(gateway.addr, "", &paid(&call, &payment).to_string()).json();
    let again = post(gateway.addr, "", &paid(&call, &payment).to_string());
    let data = &again.json()["error"]["data"];
    assert_eq!((again.status, &data["reason"]), (200, &json!("payment_already_used")));
    assert_eq!(data["paymentResponse"], bought["result"]["_meta"]["x402/payment-response"]);
    assert!(data["receipt"].is_string() && !again.text().contains("accepts") && !again.text().contains("secret"));
    assert_eq!((server.calls(), facilitator.count("/settle")), (1, 1));
}

#[test]
fn the_offer_of_one_thing_does_not_pay_for_another() {
    let (server, facilitator, wallet) = (server(), Facilitator::start(), Wallet::new());
    let gateway = shop(&server, &facilitator);
    let of = |body: &serde_json::Value| offer(&post(gateway.addr, "", &body.to_string()));
    let (add, dear) = (call("add"), call("dear"));
    let prompt = json!({"jsonrpc": "2.0", "id": 1, "method": "prompts/get", "params": {"name": "add"}});
    for (paid_for, wanted) in [(&add, &dear), (&add, &call("sub")), (&prompt, &add), (&add, &prompt)] {
        let mut draft = wallet.draft_from(&of(paid_for));
        // As it is, and with what it is for put right.
        for url in [None, Some(of(wanted)["resource"].clone())] {
            draft.resource = url.unwrap_or(draft.resource);
            let answer = post(gateway.addr, "", &paid(wanted, &wallet.sign(&draft)).to_string());
            assert_eq!(answer.reason(), "other_resource", "{answer:?}");
            offer(&answer);
        }
    }
    // Its terms, and the other's id.
    let mut draft = wallet.draft_from(&of(&dear));
    draft.entry["extra"]["id"] = of(&add)["accepts"][0]["extra"]["id"].clone();
    let answer = post(gateway.addr, "", &paid(&dear, &wallet.sign(&draft)).to_string());
    assert_eq!(answer.reason(), "other_resource");
    assert_eq!((server.calls(), facilitator.count("/verify")), (0, 0));
}

#[test]
fn one_payment_from_many_sides_buys_once() {
    let (server, facilitator, wallet) = (Origin::scripted(answer), Facilitator::start(), Wallet::new());
    let gateway = shop(&server, &facilitator);
    let call = call("events");
    let payment = wallet.sign(&wallet.draft_from(&offer(&post(gateway.addr, "", &call.to_string()))));
    let body = paid(&call, &payment).to_string();
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..16).map(|_| scope.spawn(|| post(gateway.addr, "", &body))).collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(answers.iter().filter(|answer| answer.text().contains("secret")).count(), 1);
    for answer in answers.iter().filter(|answer| !answer.text().contains("secret")) {
        let reason = answer_of(answer)["error"]["data"]["reason"].as_str().unwrap().to_owned();
        assert!(["payment_in_flight", "payment_already_used"].contains(&&*reason), "{answer:?}");
    }
    assert_eq!((server.calls(), facilitator.count("/settle")), (1, 1));
}
