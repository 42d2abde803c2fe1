//! `tollgate ledger statements` and `tollgate ledger statement`

use std::path::Path;

use serde_json::Value;

use super::settle::stated;
use crate::support::gateway::tollgate;
use crate::support::past::{USDC, day};
use crate::support::*;

pub fn ran(dir: &Path, args: &[&str]) -> String {
    let (code, out, err) = tollgate(dir, &[&["ledger"], args].concat());
    assert_eq!(code, 0, "{args:?}: {err}");
    out
}

const OPERATOR: &str =
    "[operator]\nname = \"Shop & Söhne\"\naddress = \"1 Main St\\n10115 Berlin\"\nemail = \"bill@shop.example\"\n";

/// A configuration beside the books that names both parties.
fn named(dir: &Path) {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, OPERATOR);
    let toml = toml.replace("credit = ", "address = \"Acme <Inc>\\nLondon\"\ncredit = ");
    std::fs::write(dir.join("tollgate.toml"), toml).unwrap();
}

#[test]
fn statements_are_listed_and_filtered() {
    let dir = stated();
    let lines = |args: &[&str]| ran(dir.path(), &[&["statements"], args].concat());
    let accounts: Vec<String> = lines(&["--json"])
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["account"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(accounts, ["acme", "wallets", "acme", "other"]);
    assert_eq!(lines(&["--account", "acme", "--json"]).lines().count(), 2);
    assert_eq!(lines(&["--account", "nobody"]), "");
    let table = lines(&[]);
    assert!(table.starts_with("NUMBER") && table.lines().count() == 5, "{table}");
    assert!(table.contains(&format!("1.00 USDC ({USDC})")), "{table}");
}

#[test]
fn a_statement_as_json_and_csv_adds_up() {
    let dir = stated();
    named(dir.path());
    for number in ["1", "2", "3", "4"] {
        let json = ran(dir.path(), &["statement", number, "--format", "json", "-c", "tollgate.toml"]);
        let statement: Value = serde_json::from_str(&json).unwrap();
        let units = |value: &Value| value.as_str().unwrap().parse::<i64>().unwrap();
        let sum =
            |name: &str| statement[name].as_array().unwrap().iter().map(|line| units(&line["units"])).sum::<i64>();
        assert_eq!(sum("lines"), units(&statement["gross_units"]), "{json}");
        assert_eq!(sum("correction_lines"), units(&statement["corrections_units"]), "{json}");
        let total = units(&statement["total_units"]);
        assert_eq!(sum("lines") + sum("correction_lines"), total, "{json}");
        let csv = ran(dir.path(), &["statement", number, "--format", "csv"]);
        let rows = csv.split("\r\n").skip(1).filter(|row| !row.is_empty());
        // The route of statement 1 has no comma, so that the columns can be counted from the end.
        let units: i64 = rows.map(|row| row.rsplit(',').nth(3).unwrap().parse::<i64>().unwrap()).sum();
        assert_eq!(units, total, "{csv}");
        assert_eq!(statement["operator"]["name"], "Shop & Söhne");
    }
    let third: Value =
        serde_json::from_str(&ran(dir.path(), &["statement", "3", "--format", "json", "-c", "tollgate.toml"])).unwrap();
    assert_eq!((&third["address"], &third["zone"]), (&"Acme <Inc>\nLondon".into(), &"UTC".into()));
    let correction = &third["correction_lines"][0];
    assert_eq!(
        (&correction["kind"], &correction["amount"], &correction["count"]),
        (&"void".into(), &"-0.75".into(), &1.into())
    );
    assert_eq!((&correction["day"], &correction["route"]), (&day(2).into(), &"articles".into()));
    assert_eq!(third["events"][0]["state"], "closed");
}

#[test]
fn a_statement_as_text_says_who_what_and_how_much() {
    let dir = stated();
    let text = ran(dir.path(), &["statement", "3"]);
    for expected in
        ["statement    3  closed", "period  ", "4.00 USD", "-0.75 USD", "total due", "3.25 USD", "1 void", "nobody"]
    {
        assert!(text.contains(expected), "no {expected:?} in {text}");
    }
    assert!(!text.contains("from  "), "nobody was named: {text}");
    named(dir.path());
    let text = ran(dir.path(), &["statement", "3", "-c", "tollgate.toml"]);
    assert!(text.contains("from         Shop & Söhne\n             1 Main St\n"), "{text}");
    let text = ran(dir.path(), &["statement", "2"]);
    assert!(text.contains("settled on chain") && text.contains(USDC) && text.contains("paid"), "{text}");
    let (code, _, err) = tollgate(dir.path(), &["ledger", "statement", "9"]);
    assert_eq!(code, 5);
    assert!(err.contains("no statement 9"), "{err}");
}

#[test]
fn a_statement_as_a_page_stands_by_itself_and_is_escaped() {
    let dir = stated();
    named(dir.path());
    let args = ["statement", "1", "--format", "html", "-c", "tollgate.toml", "-o", "one.html"];
    assert_eq!(ran(dir.path(), &args), "");
    let page = std::fs::read_to_string(dir.path().join("one.html")).unwrap();
    for expected in [
        "<!doctype html>",
        "Shop &amp; Söhne",
        "1 Main St<br>10115 Berlin",
        "Acme &lt;Inc&gt;<br>London",
        "news &lt;b&gt;",
        "Total due",
        "3.35",
    ] {
        assert!(page.contains(expected), "no {expected:?} in {page}");
    }
    for never in ["<script", "http:", "https:", "src=", "url(", "<b>", "<Inc>", "@import"] {
        assert!(!page.contains(never), "{never:?} in {page}");
    }
    // A document is never written over another.
    let (code, _, err) = tollgate(dir.path(), &[&["ledger"], &args[..]].concat());
    assert_eq!(code, 1);
    assert!(err.contains("one.html can't be made"), "{err}");
    let token = ran(dir.path(), &["statement", "2", "--format", "html"]);
    assert!(token.contains("Settled on chain") && token.contains("1.00 USDC") && token.contains(USDC), "{token}");
    let third = ran(dir.path(), &["statement", "3", "--format", "html"]);
    assert!(third.contains("Corrections") && third.contains("−0.75") && third.contains("before it"), "{third}");
}

fn mark(dir: &Path, number: &str, state: &str, reason: &str) -> (i32, String, String) {
    tollgate(dir, &["ledger", "statement", number, "--mark", state, "--reason", reason])
}

#[test]
fn a_statement_is_sent_then_paid_or_disputed_and_says_why() {
    let dir = stated();
    let done = |number: &str, state: &str, reason: &str| {
        let (code, out, err) = mark(dir.path(), number, state, reason);
        assert_eq!((code, out), (0, format!("statement {number} is {state}\n")), "{err}");
    };
    let refused = |number: &str, state: &str, words: &str| {
        let (code, out, err) = mark(dir.path(), number, state, "why not");
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains(words), "{err}");
    };
    refused("1", "paid", "statement 1 is closed: it can become sent");
    refused("1", "disputed", "it can become sent");
    done("1", "sent", "by mail <b>");
    refused("1", "sent", "statement 1 is sent: it can become paid or disputed");
    done("1", "disputed", "wrong rate");
    refused("1", "disputed", "statement 1 is disputed: it can become sent or paid");
    done("1", "sent", "explained");
    done("1", "paid", "bank transfer");
    for state in ["sent", "paid", "disputed"] {
        refused("1", state, "statement 1 is paid: that is its end");
        refused("2", state, "statement 2 is paid: that is its end");
    }
    let (code, _, err) = mark(dir.path(), "9", "sent", "x");
    assert!(code == 5 && err.contains("no statement 9"), "{code} {err}");
    for (reason, exit, said) in [
        ("", 2, "a line of text"),
        (" ", 2, "a line"),
        ("a\nb", 2, "one line"),
        (&"x".repeat(501), 1, "1 to 500 bytes"),
    ] {
        let (code, _, err) = mark(dir.path(), "3", "sent", reason);
        assert!(code == exit && err.contains(said), "{code} {err}");
    }
    assert_eq!(tollgate(dir.path(), &["ledger", "statement", "3", "--mark", "sent"]).0, 2);
    assert_eq!(tollgate(dir.path(), &["ledger", "statement", "3", "--reason", "x"]).0, 2);
    assert_eq!(mark(dir.path(), "3", "closed", "x").0, 2);
    let shown: Value = serde_json::from_str(&ran(dir.path(), &["statement", "1", "--format", "json"])).unwrap();
    let events: Vec<_> =
        shown["events"].as_array().unwrap().iter().map(|e| (e["state"].clone(), e["reason"].clone())).collect();
    let expected = [
        ("closed", Value::Null),
        ("sent", "by mail <b>".into()),
        ("disputed", "wrong rate".into()),
        ("sent", "explained".into()),
        ("paid", "bank transfer".into()),
    ];
    assert_eq!(events, expected.map(|(state, reason)| (Value::from(state), reason)));
    let page = ran(dir.path(), &["statement", "1", "--format", "html"]);
    assert!(page.contains("sent: by mail &lt;b&gt;") && !page.contains("<b>"), "{page}");
    assert_eq!(ran(dir.path(), &["audit"]).lines().next().unwrap().split(':').next(), Some("ok"));
}

#[test]
fn a_running_gateway_marks_and_of_two_at_once_one_wins() {
    let dir = stated();
    named(dir.path());
    let toml = std::fs::read_to_string(dir.path().join("tollgate.toml")).unwrap();
    let gateway = Gateway::start_in(dir, &toml);
    let codes: Vec<i32> = std::thread::scope(|scope| {
        let marks: Vec<_> = (0..4).map(|_| scope.spawn(|| mark(gateway.dir.path(), "1", "sent", "mail").0)).collect();
        marks.into_iter().map(|mark| mark.join().unwrap()).collect()
    });
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    let (status, dir) = gateway.stop();
    assert!(status.success());
    let shown: Value = serde_json::from_str(&ran(dir.path(), &["statement", "1", "--format", "json"])).unwrap();
    assert_eq!(shown["events"].as_array().unwrap().len(), 2);
}
