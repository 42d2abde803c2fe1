//! `tollgate ledger backup` and `restored`, beside a gateway and after one.

use std::fs;

use rusqlite::Connection;
use serde_json::Value;

use crate::support::client::exchange;
use crate::support::gateway::tollgate;
use crate::support::past::ledger;
use crate::support::*;

#[test]
fn a_running_gateway_is_copied_and_what_was_sold_since_is_not_sold_again() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    assert_eq!(agent.buy(gateway.addr, "/paid/before").status, 200);
    let (code, out, err) = tollgate(gateway.dir.path(), &["ledger", "backup", "-o", "copy.sqlite", "--json"]);
    assert_eq!(code, 0, "{err}");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&told["file"], &told["audit"]["captures"]), (&"copy.sqlite".into(), &1.into()));
    let signed = agent.request(gateway.addr, "GET", "/paid/after");
    assert_eq!(exchange(gateway.addr, signed.head()).status, 200);
    let addr = gateway.addr;
    let (_, dir) = gateway.stop();
    for beside in ["-wal", "-shm"] {
        let _ = fs::remove_file(dir.path().join(format!("tollgate.sqlite{beside}")));
    }
    fs::copy(dir.path().join("copy.sqlite"), dir.path().join("tollgate.sqlite")).unwrap();
    let (code, out, err) = tollgate(dir.path(), &["ledger", "restored"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("are refused from now on; 1 writer posts no more"), "{out}");
    let gateway = Gateway::start_in(dir, &site_toml(&origin, &agent, "").replace("127.0.0.1:0", &addr.to_string()));
    let again = exchange(gateway.addr, signed.head());
    assert!(again.status == 402 && again.reason() != "already_used", "{again:?}");
    assert_eq!(agent.buy(gateway.addr, "/paid/new").status, 200);
    // Not beside a gateway.
    let (code, _, err) = tollgate(gateway.dir.path(), &["ledger", "restored"]);
    assert!(code == 1 && err.contains("a gateway runs over this ledger"), "{code} {err}");
    let (_, dir) = gateway.stop();
    let (code, out, err) = tollgate(dir.path(), &["ledger", "audit"]);
    assert!(code == 0 && out.contains("writer 2: 1 entry"), "{out}{err}");
}

#[test]
fn books_that_are_not_whole_are_not_copied() {
    let dir = tempfile::tempdir().unwrap();
    ledger(dir.path());
    let backup = |name: &str| tollgate(dir.path(), &["ledger", "backup", "-o", name]);
    let (code, out, err) = backup("copy.sqlite");
    assert!(code == 0 && out.starts_with("ok: "), "{out}{err}");
    let (code, _, err) = backup("copy.sqlite");
    assert!(code == 1 && err.contains("is there already"), "{err}");
    let books = Connection::open(dir.path().join("tollgate.sqlite")).unwrap();
    books.execute("UPDATE entries SET amount = 1 WHERE n & 255 = 1", ()).unwrap();
    let (code, out, err) = backup("other.sqlite");
    assert!(code == 1 && out.starts_with("wrong: entry") && err.contains("not copied"), "{out}{err}");
    assert!(!dir.path().join("other.sqlite").exists() && !dir.path().join("other.sqlite.new").exists());
    assert_eq!(backup("nowhere/copy.sqlite").0, 1);
    assert_eq!(tollgate(dir.path(), &["ledger", "backup"]).0, 2);
}
