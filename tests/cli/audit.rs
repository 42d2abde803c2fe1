//! `tollgate ledger audit` from a checkpoint, and of a damaged copy.

use std::fs;

use rusqlite::Connection;
use serde_json::Value;

use crate::support::gateway::tollgate;
use crate::support::past::ledger;

#[test]
fn an_audit_notes_where_it_is_and_the_next_one_begins_there() {
    let dir = tempfile::tempdir().unwrap();
    ledger(dir.path());
    let args = ["ledger", "audit", "--json", "--resume", "audit.json"];
    let (code, first, err) = tollgate(dir.path(), &args);
    assert_eq!(code, 0, "{err}");
    let checkpoint: Value = serde_json::from_str(&fs::read_to_string(dir.path().join("audit.json")).unwrap()).unwrap();
    assert_eq!((&checkpoint["schema"], &checkpoint["complete"]), (&"tollgate.audit/1".into(), &true.into()));
    for more in [&[][..], &["--only-new"]] {
        let (code, again, err) = tollgate(dir.path(), &[&args, more].concat());
        assert_eq!((code, &again), (0, &first), "{err}");
    }
    // History is written anew, whole: the plain audit is content.
    let sql = Connection::open(dir.path().join("tollgate.sqlite")).unwrap();
    sql.execute("UPDATE entries SET status = 404 WHERE n & 255 = 2", ()).unwrap();
    crate::rechain::rechain(&sql);
    drop(sql);
    assert_eq!(tollgate(dir.path(), &["ledger", "audit"]).0, 0);
    for more in [&[][..], &["--only-new"]] {
        let (code, out, _) = tollgate(dir.path(), &[&args[..], more].concat());
        assert_eq!(code, 1);
        let report: Value = serde_json::from_str(&out).unwrap();
        assert!(report["finding"]["what"].as_str().unwrap().contains("an earlier audit has seen"), "{out}");
    }
    // What was found wrong moves nothing on.
    let after: Value = serde_json::from_str(&fs::read_to_string(dir.path().join("audit.json")).unwrap()).unwrap();
    assert_eq!(after, checkpoint);
}

#[test]
fn a_checkpoint_that_does_not_fit_is_refused_with_2() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    ledger(dir.path());
    ledger(other.path());
    let audit = |dir: &std::path::Path, file: &str| tollgate(dir, &["ledger", "audit", "--resume", file]);
    assert_eq!(audit(dir.path(), "audit.json").0, 0);
    let whole = fs::read_to_string(dir.path().join("audit.json")).unwrap();
    let refused = |text: &str, said: &str| {
        fs::write(other.path().join("audit.json"), text).unwrap();
        let (code, out, err) = audit(other.path(), "audit.json");
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains("audit.json") && err.contains(said), "{err}");
        assert_eq!(fs::read_to_string(other.path().join("audit.json")).unwrap(), text, "left as it was");
    };
    refused(&whole, "of another ledger");
    refused("{}", "no checkpoint of an audit");
    refused(&whole.replace("\"complete\":true", "\"complete\":null"), "damaged");
    refused(&whole.replace("audit/1", "audit/7"), "tollgate.audit/7");
    assert_eq!(tollgate(dir.path(), &["ledger", "audit", "--only-new"]).0, 2, "only new since when?");
    // A folder that is not there.
    let (code, out, err) = audit(dir.path(), "nowhere/audit.json");
    assert!(code == 2 && out.is_empty() && err.contains("the folder nowhere is not there"), "{code} {out}{err}");
}

/// Whoever has just run an audit is not told to run one.
#[test]
fn the_advice_of_an_audit_is_not_to_audit() {
    let dir = tempfile::tempdir().unwrap();
    ledger(dir.path());
    let path = dir.path().join("tollgate.sqlite");
    let whole = fs::read(&path).unwrap();
    Connection::open(&path).unwrap().execute("UPDATE book SET ledger_id = x'00'", ()).unwrap();
    let said = |what: &str| {
        let (code, out, err) = tollgate(dir.path(), &["ledger", "audit"]);
        assert_eq!(code, 1, "{what}: {out}{err}");
        assert!(!format!("{out}{err}").contains("run `tollgate ledger audit`"), "{what}: {out}{err}");
        format!("{out}{err}")
    };
    assert!(said("without an id").contains("restore a backup"));
    for (from, to) in [(4096, 8192), (8192, 12_288), (0, 100)] {
        let mut damaged = whole.clone();
        damaged[from + 100..to + 100].fill(0x5a);
        for beside in ["-wal", "-shm"] {
            let _ = fs::remove_file(dir.path().join(format!("tollgate.sqlite{beside}")));
        }
        fs::write(&path, &damaged).unwrap();
        said(&format!("bytes from {from}"));
    }
}
