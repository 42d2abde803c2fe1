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
