//! `ledger.keep_targets`: what listings show, and that nothing else is different.

use serde_json::Value;

use crate::support::gateway::tollgate;
use crate::support::*;

#[test]
fn urls_are_kept_in_part_and_what_was_bought_is_proved_all_the_same() {
    for (keep, shown) in [("full", Some("/paid/a?who=alice")), ("path", Some("/paid/a?…")), ("hash", None)] {
        let (origin, agent) = (Origin::start(), Agent::start());
        let more = format!("[ledger]\nkeep_targets = \"{keep}\"\n");
        let gateway = Gateway::start(&site_toml(&origin, &agent, &more));
        assert_eq!(agent.buy(gateway.addr, "/paid/a?who=alice").status, 200);
        let (status, dir) = gateway.stop();
        assert!(status.success());
        let (code, out, err) = tollgate(dir.path(), &["ledger", "list", "--json"]);
        assert_eq!(code, 0, "{err}");
        let row: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
        match shown {
            Some(end) => assert!(row["target"].as_str().unwrap().ends_with(end), "{keep}: {row}"),
            None => assert_eq!(row["target"], Value::Null, "{keep}: {row}"),
        }
        let n = row["n"].as_str().unwrap();
        let (code, out, _) = tollgate(dir.path(), &["ledger", "verify", n]);
        assert!(code == 0 && out.contains("its digest holds") && out.ends_with("nothing failed\n"), "{keep}: {out}");
        assert_eq!(tollgate(dir.path(), &["ledger", "audit"]).0, 0);
    }
}
