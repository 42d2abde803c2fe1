//! Audits that go on where an earlier one was: whatever is done to the books is found over a checkpoint, too.

use tollgate::ledger::{
    audit::{AuditOptions, AuditReport, Checkpoint, CheckpointError, Place},
    read::LedgerReader,
    store::Delivery,
};

use crate::rechain::rechain;
use crate::support::*;

const BASE: i64 = 1 << 48;

fn audit(ledger: &Ledger, from: Option<&Checkpoint>, only_new: bool) -> (AuditReport, Option<Checkpoint>) {
    let options = AuditOptions { from, only_new, ..AuditOptions::default() };
    LedgerReader::open(&ledger.path()).unwrap().audit_from(&options, |_| ()).unwrap()
}

/// Every checkpoint on the way, and the last one.
fn checkpoints(ledger: &Ledger) -> Vec<Checkpoint> {
    let mut all = Vec::new();
    let reader = LedgerReader::open(&ledger.path()).unwrap();
    let (report, end) = reader.audit_from(&AuditOptions::default(), |at| all.push(at.checkpoint())).unwrap();
    assert_eq!(report.finding, None);
    all.extend(end);
    all
}

/// Four captures, one of them voided, outcomes for two; a close; three more captures and the void of an earlier one.
fn books() -> Ledger {
    let mut ledger = Ledger::new();
    let receipts: Vec<_> = (0..4).map(|i| ledger.pay(&i.to_string())).collect();
    ledger.outcome(receipts[0].n, Delivery::Complete, false);
    ledger.outcome(receipts[1].n, Delivery::NotSent, true);
    ledger.reopen().unwrap();
    ledger.clock.advance(86_400_000);
    wait(ledger.store().close_days(20_782, None)).unwrap();
    more(&mut ledger, "b");
    ledger
}

/// Sells on, and voids what was sold before.
fn more(ledger: &mut Ledger, name: &str) {
    ledger.reopen().unwrap();
    let now_ms = ledger.clock.now_ms();
    let mut n = 0;
    for i in 0..3 {
        let request =
            tollgate::ledger::store::ClaimRequest { paid_at_ms: now_ms, ..request(&format!("{name}{i}"), 10_000) };
        let claim = wait(tollgate::ledger::store::Store::claim(ledger.store(), request)).unwrap();
        n = ledger.capture(claim).unwrap().n;
    }
    ledger.outcome(n, Delivery::OriginCut, true);
    ledger.close();
}

#[test]
fn an_audit_goes_on_from_wherever_it_was_interrupted_and_comes_to_the_same() {
    let mut ledger = books();
    let (whole, _) = audit(&ledger, None, false);
    let all = checkpoints(&ledger);
    assert_eq!(all.iter().filter(|at| at.complete).count(), 1);
    assert!(all.len() > 6, "{}", all.len());
    for at in &all {
        let read = Checkpoint::parse(&at.to_text()).unwrap();
        assert_eq!(&read, at);
        for only_new in [false, true] {
            assert_eq!(audit(&ledger, Some(&read), only_new).0, whole);
        }
    }
    // And when more was sold meanwhile.
    more(&mut ledger, "c");
    let (whole, last) = audit(&ledger, None, false);
    assert_eq!((whole.finding.as_ref(), whole.captures, whole.voids), (None, 10, 3));
    for at in &all {
        for only_new in [false, true] {
            let (report, end) = audit(&ledger, Some(at), only_new);
            assert_eq!((report, &end), (whole.clone(), &last));
        }
    }
}

/// Does something to books over a checkpoint that was made before it, and says where it is found.
#[track_caller]
fn check(sql: &str, place: Place, said: &str, is_rechained: bool) {
    let mut ledger = books();
    let from = checkpoints(&ledger).pop().unwrap();
    more(&mut ledger, "c");
    assert_eq!(audit(&ledger, Some(&from), false).0.finding, None);
    let books = ledger.sql();
    books.execute_batch(sql).unwrap();
    if is_rechained {
        rechain(&books);
    }
    drop(books);
    let finding = audit(&ledger, Some(&from), false).0.finding.unwrap_or_else(|| panic!("not found: {sql}"));
    assert_eq!(finding.place, place, "{sql}: {finding}");
    assert!(finding.to_string().contains(said), "{sql}: {finding}");
}

/// Number 3 lies before the checkpoint, 11 after it.
#[test]
fn what_is_done_before_or_after_a_checkpoint_is_found() {
    for n in [3, 11] {
        let entry = || Place::Entry(BASE + n);
        check(&format!("DELETE FROM entries WHERE n & 255 = {n}"), entry(), "the next entry's number", false);
        check(&format!("UPDATE entries SET amount = 1 WHERE n & 255 = {n}"), entry(), "hash of its columns", false);
        let swap = format!(
            "UPDATE entries SET n = 0 WHERE n & 255 = {n}; UPDATE entries SET n = n - 1 WHERE n & 255 = {n} + 1; \
             UPDATE entries SET n = {} WHERE n = 0",
            BASE + n + 1
        );
        check(&swap, entry(), "hash of its columns", false);
        let flip = "UPDATE entries SET evidence = CAST(x'02' || substr(evidence, 2) AS BLOB) WHERE n & 255";
        check(&format!("{flip} = {n}"), entry(), "its evidence's digest", false);
    }
}

/// Whoever writes the chain anew is found by what was seen of it before, and by nothing else.
#[test]
fn a_tail_that_was_rewritten_before_a_checkpoint_is_found() {
    let dearer = "UPDATE entries SET status = 404 WHERE n & 255 = 9";
    let ledger = books();
    let last = ledger.number("SELECT max(batch_seq) FROM batches");
    let from = checkpoints(&ledger).pop().unwrap();
    check(dearer, Place::Batch { slot: 1, batch_seq: last }, "its head, as an earlier audit has seen it", true);
    // Only what is new: the same is found, for the chain does not pass through the checkpoint.
    let books = ledger.sql();
    books.execute_batch(dearer).unwrap();
    rechain(&books);
    drop(books);
    assert_eq!(audit(&ledger, None, false).0.finding, None, "a plain audit can't tell");
    let finding = audit(&ledger, Some(&from), true).0.finding.unwrap();
    assert!(finding.to_string().contains("as an earlier audit has seen it"), "{finding}");
}

#[test]
fn a_ledger_that_ends_before_a_checkpoint_is_found() {
    let mut ledger = books();
    ledger.close();
    let copy = std::fs::read(ledger.path()).unwrap();
    more(&mut ledger, "c");
    let from = checkpoints(&ledger).pop().unwrap();
    std::fs::write(ledger.path(), copy).unwrap();
    for only_new in [false, true] {
        let finding = audit(&ledger, Some(&from), only_new).0.finding.unwrap();
        assert!(finding.to_string().contains("which an earlier audit has seen"), "{finding}");
    }
}

/// The price of `only_new`, as its help has it: rows are counted, links are not read.
#[test]
fn what_is_only_new_is_all_that_is_read() {
    let ledger = books();
    let from = checkpoints(&ledger).pop().unwrap();
    ledger.sql().execute("UPDATE entries SET amount = 1 WHERE n & 255 = 3", ()).unwrap();
    assert_eq!(audit(&ledger, Some(&from), true).0.finding, None);
    assert!(audit(&ledger, Some(&from), false).0.finding.is_some());
    ledger.sql().execute("DELETE FROM entries WHERE n & 255 = 3", ()).unwrap();
    let finding = audit(&ledger, Some(&from), true).0.finding.unwrap();
    assert_eq!((finding.place, finding.what), (Place::File, "entries in all"));
}

#[test]
fn what_is_no_checkpoint_is_said_to_be_none() {
    let text = checkpoints(&books()).pop().unwrap().to_text();
    let read = |text: &str| Checkpoint::parse(text).unwrap_err();
    assert!(matches!(read(""), CheckpointError::Form(_)));
    assert!(matches!(read("{}"), CheckpointError::Form(_)));
    assert!(matches!(read(&text[..text.len() / 2]), CheckpointError::Form(_)));
    assert_eq!(
        read(&text.replace("tollgate.audit/1", "tollgate.audit/2")),
        CheckpointError::Newer("tollgate.audit/2".into())
    );
    assert_eq!(read(&text.replace("\"complete\":true", "\"complete\":false")), CheckpointError::Damaged);
    // Of a writer whose state is something else, though its digest fits.
    let other = text.replace("\"head\":\"", "\"head\":\"x");
    let other = other[..other.find(",\"digest\"").unwrap()].to_owned() + "}";
    let digest = tollgate::ledger::chain::evidence_digest(other.as_bytes());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let other = format!("{},\"digest\":\"{digest}\"}}", &other[..other.len() - 1]);
    assert!(matches!(read(&other), CheckpointError::Form(_)));
}
