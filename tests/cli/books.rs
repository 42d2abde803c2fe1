//! `tollgate ledger`

use std::fs;

use serde_json::Value;

use crate::support::gateway::tollgate;
use crate::support::*;

/// A ledger with three captures of `acme`, made by a gateway that has ended.
fn ledger() -> tempfile::TempDir {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    for path in ["/paid/1", "/paid/2", "/paid/3"] {
        assert_eq!(agent.buy(gateway.addr, path).status, 200);
    }
    let (status, dir) = gateway.stop();
    assert!(status.success());
    dir
}

fn rows(dir: &tempfile::TempDir, args: &[&str]) -> Vec<Value> {
    let (code, out, err) = tollgate(dir.path(), &[&["ledger", "list", "--json"], args].concat());
    assert_eq!(code, 0, "{err}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_missing_ledger_is_not_found() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["list"][..], &["list", "--json"], &["audit"], &["show", "1"], &["list", "--ledger", "no/where"]] {
        let (code, out, err) = tollgate(dir.path(), &[&["ledger"], args].concat());
        assert_eq!((code, out.as_str()), (5, ""), "{args:?}");
        assert!(err.contains("is not there"), "{err}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "looking made files");
}

#[test]
fn entries_are_listed_newest_first_and_filtered() {
    let dir = ledger();
    let all = rows(&dir, &[]);
    let targets: Vec<&str> =
        all.iter().map(|row| row["target"].as_str().unwrap().rsplit('/').next().unwrap()).collect();
    assert_eq!(targets, ["3", "2", "1"]);
    let row = &all[0];
    for (member, expect) in
        [("kind", "capture"), ("account", "acme"), ("asset", "USD"), ("amount", "0.01"), ("method", "GET")]
    {
        assert_eq!(row[member], expect);
    }
    assert_eq!((row["units"].as_i64(), row["status"].as_i64()), (Some(10_000), Some(200)));
    assert!(row["n"].as_str().unwrap().parse::<i64>().is_ok());
    assert_eq!(row["key"].as_str().unwrap().len(), 34);
    let at = row["at"].as_str().unwrap();
    assert!(at.len() == 24 && at.ends_with('Z') && &at[10..11] == "T", "{at}");
    assert_eq!((&row["state"], &row["outcome"]["delivery"]), (&"delivered".into(), &"complete".into()));

    assert_eq!(rows(&dir, &["--limit", "2"]).len(), 2);
    assert_eq!(rows(&dir, &["--limit", "0"]).len(), 3);
    assert_eq!(rows(&dir, &["--account", "acme", "--since", "1h"]).len(), 3);
    assert_eq!(rows(&dir, &["--account", "other"]).len(), 0);
    assert_eq!(rows(&dir, &["--since", "2200-01-01"]).len(), 0);
    assert_eq!(rows(&dir, &["--state", "delivered"]).len(), 3);
    assert_eq!(rows(&dir, &["--state", "voided"]).len(), 0);
    assert_eq!(rows(&dir, &["-c", "tollgate.toml"]).len(), 3);
}

#[test]
fn a_table_is_aligned_and_plain_in_a_pipe() {
    let dir = ledger();
    let (code, out, err) = tollgate(dir.path(), &["ledger", "list", "--limit", "2"]);
    assert_eq!(code, 0);
    assert!(err.contains("more than 2"), "{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 3);
    let column = lines[0].find("REQUEST").unwrap();
    assert!(lines[1..].iter().all(|line| line[column..].starts_with("GET http://")), "{out}");
    assert!(!out.contains('\u{1b}'));
}

#[test]
fn one_entry_is_shown_with_what_proves_it() {
    let dir = ledger();
    let row = rows(&dir, &["--limit", "1"]).remove(0);
    let show = |args: &[&str]| tollgate(dir.path(), &[&["ledger", "show"], args].concat());
    let (code, out, _) = show(&["--json", row["n"].as_str().unwrap()]);
    assert_eq!(code, 0);
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown["evidence"]["verifies"], true, "{shown}");
    let base = shown["evidence"]["signature_base"].as_str().unwrap();
    assert!(base.contains("\"@path\": /paid/3\n"), "{base}");
    // The same entry by its other names, as text.
    let offer = shown["evidence"]["offer_id"].as_str().unwrap();
    for id in [row["n"].as_str().unwrap(), row["key"].as_str().unwrap(), offer] {
        let (code, out, err) = show(&[id]);
        assert_eq!(code, 0, "{err}");
        assert!(out.contains(base) && out.contains("the signature verifies") && out.contains("0.01 USD"), "{out}");
    }
    for absent in ["7", &format!("01{}", "00".repeat(16)), &"A".repeat(64)] {
        let (code, out, err) = show(&[absent]);
        assert_eq!((code, out.as_str()), (5, ""), "{err}");
        assert!(err.contains("no entry"), "{err}");
    }
    assert_eq!(show(&["what"]).0, 2);
}

#[test]
fn an_audit_ends_with_the_head_or_the_first_wrong_row() {
    let dir = ledger();
    let (code, out, err) = tollgate(dir.path(), &["ledger", "audit"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("ok: 3 entries, ") && out.contains(", head "), "{out}");
    assert!(out.contains("charged 0.03 USD in 3 captures"), "{out}");
    let (code, out, _) = tollgate(dir.path(), &["ledger", "audit", "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["ok"], &report["entries"]), (0, &true.into(), &3.into()));
    assert_eq!(report["writers"][0]["head"].as_str().unwrap().len(), 64);

    let n = rows(&dir, &["--limit", "2"])[1]["n"].as_str().unwrap().to_owned();
    let books = rusqlite::Connection::open(dir.path().join("tollgate.sqlite")).unwrap();
    books.execute("UPDATE entries SET amount = 1 WHERE n = ?1", [n.parse::<i64>().unwrap()]).unwrap();
    drop(books);
    let (code, out, _) = tollgate(dir.path(), &["ledger", "audit"]);
    assert!(code == 1 && out.starts_with(&format!("wrong: entry {n}: ")), "{out}");
    let (code, out, _) = tollgate(dir.path(), &["ledger", "audit", "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["finding"]["place"]), (1, &format!("entry {n}").into()));
}

#[test]
fn a_file_that_is_no_ledger_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tollgate.sqlite"), "what?").unwrap();
    for command in [&["list"][..], &["audit"], &["show", "1"]] {
        let (code, out, err) = tollgate(dir.path(), &[&["ledger"], command].concat());
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.starts_with("error: ") && err.contains("tollgate.sqlite"), "{err}");
    }
}

#[test]
fn one_is_no_plural() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    assert_eq!(agent.buy(gateway.addr, "/paid/1").status, 200);
    let (_, dir) = gateway.stop();
    let (_, out, _) = tollgate(dir.path(), &["ledger", "audit"]);
    assert!(out.starts_with("ok: 1 entry, ") && out.contains(" in 1 capture less 0 voids; "), "{out}");
}
