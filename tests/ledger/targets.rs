//! Targets that are kept in part: their digests are over all of them, and whatever is done to them is found.

use tollgate::ledger::{
    audit::{AuditReport, Place},
    correction::Rules,
    evidence::{Evidence, WalletEvidence},
    read::LedgerReader,
    settling::Intent,
    store::{Posting, Store},
    targets::KeepTargets,
};

use crate::settlement::{claim, wallet_posting};
use crate::support::*;

const BASE: i64 = 1 << 48;
const TARGET: &str = "https://shop.example/articles/1?who=alice";

fn signed() -> Posting {
    let evidence = Evidence {
        sealed_id: None,
        template_digest: None,
        signature_base: b"\"@authority\": shop.example".to_vec(),
        signature: vec![9; 64],
        thumbprint: "poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U".into(),
        directory_digest: [8; 32],
        verified_ms: NOON,
        method: "GET".into(),
        target: TARGET.into(),
        origin_status: 200,
    };
    Posting { target: TARGET.into(), evidence: evidence.encode(), ..posting(units(10_000)) }
}

fn wallet() -> Posting {
    let evidence = WalletEvidence { method: "GET".into(), target: TARGET.into(), ..WalletEvidence::default() };
    Posting { target: TARGET.into(), evidence: evidence.encode(), ..wallet_posting() }
}

/// A capture on credit, a token payment whose end nobody knows, one that is owed.
fn books(keep_targets: KeepTargets) -> Ledger {
    let ledger = Ledger::new();
    ledger.store().set_rules(Rules { keep_targets, ..Rules::default() });
    wait(ledger.store().capture(ledger.claim("a").unwrap(), signed())).unwrap();
    let intend = |name: &str| {
        let intent = Intent {
            posting: wallet(),
            facilitator: "https://facilitator.example".into(),
            payload: b"{}".to_vec(),
            hard_until_ms: NOON + 60_000,
        };
        wait(ledger.store().intend(claim(&ledger, name).unwrap(), intent)).unwrap()
    };
    let settling = intend("b");
    wait(ledger.store().settled(settling, wallet(), true)).unwrap();
    ledger.store().unknown(intend("c"));
    ledger
}

fn audit(ledger: &Ledger) -> AuditReport {
    LedgerReader::open(&ledger.path()).unwrap().audit(|_, _| ()).unwrap()
}

fn column(ledger: &Ledger, n: i64) -> Option<String> {
    let select = format!("SELECT target FROM entries WHERE n & 255 = {n}");
    ledger.sql().query_row(&select, (), |row| row.get(0)).unwrap()
}

#[test]
fn a_part_is_kept_and_the_whole_is_known_where_it_is_needed() {
    for (keep, expected) in [
        (KeepTargets::Full, Some(TARGET)),
        (KeepTargets::Path, Some("https://shop.example/articles/1?…")),
        (KeepTargets::Hash, None),
    ] {
        let mut ledger = books(keep);
        for n in [1, 2, 3, 5] {
            assert_eq!(column(&ledger, n).as_deref(), expected, "{keep:?}, entry {n}");
        }
        // Whoever comes back after a restart is asked for what was bought, all of it.
        ledger.reopen().unwrap();
        let bought = wait(ledger.store().find(key("b"))).unwrap().unwrap();
        assert_eq!(bought.target.as_deref(), Some(TARGET), "{keep:?}");
        let open = wait(ledger.store().unresolved()).unwrap();
        assert_eq!(&*open[0].intent.posting.target, TARGET, "{keep:?}");
        assert_eq!(&*open[0].request.purchase.as_ref().unwrap().what, format!("GET {TARGET}"));
        ledger.close();
        let report = audit(&ledger);
        assert_eq!((report.finding, report.dropped), (None, 0), "{keep:?}");
        let verified = LedgerReader::open(&ledger.path()).unwrap().verify(&(BASE + 1).to_string()).unwrap().unwrap();
        let ok = verified.checks.iter().any(|check| check.name == "target" && check.detail == "its digest holds");
        assert!(ok, "{keep:?}: {verified:?}");
        // What the column keeps does not count for what the request was.
        let resource = verified.checks.iter().find(|check| check.name == "resource").unwrap();
        assert!(!resource.detail.contains("different requests"), "{keep:?}: {resource:?}");
    }
}

#[test]
fn a_part_that_is_changed_is_found() {
    for keep in [KeepTargets::Path, KeepTargets::Hash] {
        for change in [
            "target = 'https://shop.example/articles/2?…'",
            "target = 'https://shop.example/articles/1?who=bob'",
            "target_salt = zeroblob(16)",
            "target_digest = zeroblob(32)",
        ] {
            let mut ledger = books(keep);
            ledger.close();
            ledger.sql().execute(&format!("UPDATE entries SET {change} WHERE n & 255 = 1"), ()).unwrap();
            let finding = audit(&ledger).finding.unwrap_or_else(|| panic!("not found: {keep:?} {change}"));
            assert_eq!(finding.place, Place::Entry(BASE + 1), "{keep:?} {change}: {finding}");
        }
    }
    // Only an archive takes salt and evidence.
    let mut ledger = books(KeepTargets::Path);
    ledger.close();
    ledger.sql().execute("UPDATE entries SET target = NULL, target_salt = NULL, evidence = NULL", ()).unwrap();
    let finding = audit(&ledger).finding.unwrap();
    assert_eq!((finding.place, finding.what), (Place::Entry(BASE + 1), "its target's salt"));
}
