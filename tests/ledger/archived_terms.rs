//! Terms that something was sold under whose evidence is in an archive.

use tollgate::ledger::archive::Drops;

use crate::{
    archive::{audit_with, let_go, make, whole},
    closing::{DAY_MS, TODAY, key},
    support::*,
    terms::{remember, sell},
};

#[test]
fn terms_are_missed_although_the_evidence_that_names_them_is_dropped() {
    for drops in [Drops::Evidence, Drops::Rows] {
        let mut ledger = Ledger::new();
        let template = remember(&ledger, b"sold under");
        sell(&ledger, "a", Some(template));
        ledger.reopen().unwrap();
        ledger.clock.advance(DAY_MS);
        wait(ledger.store().close_days(TODAY + 1, Some(key()))).unwrap();
        ledger.clock.advance(DAY_MS);
        sell(&ledger, "later", None);
        let (path, _) = make(&ledger, "one.jsonl", drops);
        assert!(let_go(&ledger, &path, drops, 100) > 0, "{drops:?}");
        whole(&ledger, &[]);
        whole(&ledger, std::slice::from_ref(&path));
        ledger.change("DELETE FROM terms");
        for archives in [&[][..], &[path]] {
            let finding = audit_with(&ledger, archives).finding.expect("nothing is found");
            assert!(finding.to_string().contains("was sold under it"), "{drops:?}: {finding}");
        }
    }
}
