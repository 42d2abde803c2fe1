//! Terms that something was sold under must be there, as they were.

use tollgate::ledger::{
    audit::{AuditOptions, Checkpoint, Finding, Place},
    chain::evidence_digest,
    evidence::Evidence,
    store::{Posting, Receipt, Store},
};

use crate::support::*;

/// The bytes of a template, remembered.
pub fn remember(ledger: &Ledger, bytes: &[u8]) -> [u8; 32] {
    let digest = evidence_digest(bytes);
    wait(ledger.store().remember_terms(vec![(digest, bytes.to_vec())])).unwrap();
    digest
}

/// A sale under these terms.
pub fn sell(ledger: &Ledger, name: &str, template: Option<[u8; 32]>) -> Receipt {
    let claim = ledger.claim(name).unwrap();
    let posting = posting(claim.request.amount);
    let evidence = Evidence {
        sealed_id: template.map(|_| [9; 48]),
        template_digest: template,
        signature_base: b"base".to_vec(),
        signature: vec![7; 64],
        thumbprint: "poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U".into(),
        directory_digest: [8; 32],
        verified_ms: NOON,
        method: posting.method.to_string(),
        target: posting.target.to_string(),
        origin_status: 200,
    };
    let posting = Posting { evidence: evidence.encode(), ..posting };
    wait(ledger.store().capture(claim, posting)).unwrap()
}

fn books() -> (Ledger, [u8; 32]) {
    let mut ledger = Ledger::new();
    let template = remember(&ledger, b"sold under");
    remember(&ledger, b"only offered");
    sell(&ledger, "without an id", None);
    sell(&ledger, "a", Some(template));
    sell(&ledger, "b", Some(template));
    ledger.close();
    (ledger, template)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The second of three entries was the first that was sold under it.
#[track_caller]
fn is_missed(finding: Option<Finding>, template: &[u8]) {
    let finding = finding.expect("nothing is found");
    assert_eq!(finding.place, Place::Terms(hex(template)), "{finding}");
    let said = format!("the row: expected one, for entry {} was sold under it", (1_i64 << 48) + 2);
    assert!(finding.to_string().contains(&said), "{finding}");
}

#[test]
fn terms_that_are_gone_or_were_exchanged_are_named() {
    let (ledger, template) = books();
    assert_eq!(ledger.audit().finding, None);
    // Nothing was sold under these.
    ledger.change(&format!("DELETE FROM terms WHERE digest <> {}", literal(&template)));
    assert_eq!(ledger.audit().finding, None);
    let other = b"other terms";
    let (bytes, digest) = (literal(other), literal(&evidence_digest(other)));
    assert_eq!(ledger.change(&format!("UPDATE terms SET bytes = {bytes}, digest = {digest}")), 1);
    is_missed(ledger.audit().finding, &template);
    ledger.change("DELETE FROM terms");
    is_missed(ledger.audit().finding, &template);
}

#[test]
fn an_audit_that_goes_on_from_an_earlier_one_misses_them_too() {
    let (ledger, template) = books();
    let seen = ledger.reader().audit_from(&AuditOptions::default(), |_| ()).unwrap().1.unwrap();
    let seen = Checkpoint::parse(&seen.to_text()).unwrap();
    ledger.change("DELETE FROM terms");
    for only_new in [false, true] {
        let options = AuditOptions { from: Some(&seen), only_new, ..AuditOptions::default() };
        is_missed(ledger.reader().audit_from(&options, |_| ()).unwrap().0.finding, &template);
    }
}
