//! Closed days in a file of their own: nothing is dropped before it is whole, and both together are the books.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use rusqlite::ffi;
use tollgate::ledger::{
    archive::{
        ArchiveError, Drops, Summary,
        read::{summary, verify},
        write::Order as Make,
    },
    audit::{AuditOptions, AuditReport, Checkpoint, Place},
    backup::Copy,
    faults::Faults,
    read::{Filter, LedgerReader},
    report::{By, Days},
    store::{Delivery, Health, Store, What},
    verify::CheckResult,
};

use crate::{
    closing::{DAY_MS, TODAY, buy, key},
    corrections::{order, refund},
    settlement::{intend, settle},
    support::*,
};

const BASE: i64 = 1 << 48;

/// Day one: five sales on credit, one of them voided, outcomes for two, a token payment; a close; day two: a sale and the refund of the
/// token payment; day four: sales.
fn books() -> Ledger {
    let mut ledger = Ledger::new();
    let sold: Vec<_> = (0..5).map(|i| buy(&ledger, "acme", &format!("a{i}"), 10_000)).collect();
    let token = settle(&ledger, intend(&ledger, "token"), false).unwrap().n;
    ledger.outcome(sold[0].n, Delivery::Complete, false);
    ledger.outcome(sold[1].n, Delivery::NotSent, true);
    ledger.reopen().unwrap();
    ledger.clock.advance(DAY_MS);
    wait(ledger.store().close_days(TODAY + 1, Some(key()))).unwrap();
    buy(&ledger, "other", "b", 500);
    refund(&ledger, token, "0x9c", None, Some(tollgate::ledger::correction::State::Done)).unwrap();
    ledger.clock.advance(2 * DAY_MS);
    wait(ledger.store().close_days(TODAY + 3, Some(key()))).unwrap();
    for i in 0..4 {
        buy(&ledger, "acme", &format!("c{i}"), 7);
    }
    ledger
}

fn reader(ledger: &Ledger) -> LedgerReader {
    LedgerReader::open(&ledger.path()).unwrap()
}

pub fn make_until(
    ledger: &Ledger,
    name: &str,
    until: i64,
    drops: Drops,
) -> Result<(PathBuf, Option<Summary>, Vec<String>), ArchiveError> {
    let path = ledger.dir().join(name);
    let key = key();
    let order = Make { until, drops, key: Some(&key), now_ms: ledger.clock.now_ms() };
    let made = reader(ledger).archive(&path, order, |_, _| ())?;
    Ok((path, made.summary, made.held))
}

pub fn make(ledger: &Ledger, name: &str, drops: Drops) -> (PathBuf, Summary) {
    let (path, summary, _) = make_until(ledger, name, TODAY + 1, drops).unwrap();
    (path, summary.unwrap())
}

/// Notes and drops; how many rows.
pub fn let_go(ledger: &Ledger, path: &Path, drops: Drops, most: i64) -> u64 {
    wait(ledger.store().note_archive(summary(path).unwrap(), drops)).unwrap();
    let mut dropped = 0;
    loop {
        match wait(ledger.store().drop_archived(most)).unwrap() {
            0 => return dropped,
            some => dropped += some,
        }
    }
}

pub fn audit_with(ledger: &Ledger, archives: &[PathBuf]) -> AuditReport {
    let keys = [key().public_jwk().public_key(false).unwrap()];
    let options = AuditOptions { keys: &keys, archives, ..AuditOptions::default() };
    reader(ledger).audit_from(&options, |_| ()).unwrap().0
}

#[track_caller]
pub fn whole(ledger: &Ledger, archives: &[PathBuf]) -> AuditReport {
    let report = audit_with(ledger, archives);
    assert_eq!(report.finding, None);
    report
}

/// What must be the same whatever was archived.
fn sums(report: &AuditReport) -> AuditReport {
    let AuditReport { entries, captures, voids, refunds, unproven, statements, ref charged, .. } = *report;
    let charged = charged.clone();
    AuditReport { entries, captures, voids, refunds, unproven, statements, charged, ..AuditReport::default() }
}

#[test]
fn an_archive_has_closed_days_in_full_and_proves_itself() {
    let ledger = books();
    let (path, made) = make(&ledger, "a.jsonl", Drops::Nothing);
    assert_eq!((made.until, made.parts.len(), made.entries()), (TODAY + 1, 1, 8));
    assert_eq!(made.parts[0].seqs, (1, 8));
    let read = verify(&path, |_, _| None, |_| Ok(())).unwrap();
    assert_eq!(read, made);
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("\"target\":\"https://shop.example/articles/1?full\"")
            && text.contains("\"evidence\":\"ASBldmlkZW5jZQ==\"")
    );
    assert!(text.contains("{\"key\":{\"thumbprint\":\"poqkLGiymh"), "who signed can be verified from the file alone");
    // Nothing was dropped for it.
    let report = whole(&ledger, &[path]);
    assert_eq!((report.archives, report.archived, report.dropped), (1, 0, 0));
    // Days that are open are not archived.
    let open = make_until(&ledger, "b.jsonl", TODAY + 4, Drops::Nothing).unwrap_err();
    assert!(matches!(open, ArchiveError::Open { .. }), "{open}");
    assert!(!ledger.dir().join("b.jsonl").exists());
}

#[test]
fn whatever_is_done_to_an_archive_is_found() {
    let ledger = books();
    let (path, _) = make(&ledger, "a.jsonl", Drops::Rows);
    let_go(&ledger, &path, Drops::Rows, 3);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let entry = |n: i64| lines.iter().position(|line| line.contains(&format!("\"n\":\"{}\"", BASE + n))).unwrap();
    let (third, fourth) = (entry(3), entry(4));
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        change(&mut lines);
        lines.join("\n") + "\n"
    };
    let batch = lines.iter().position(|line| line.starts_with("{\"batch\"")).unwrap();
    for (changed, said) in [
        (with(&|lines| _ = lines.remove(third)), "is missing"),
        (
            with(&|lines| lines[third] = lines[third].replace("\"amount\":10000", "\"amount\":1")),
            "hash is not that of its columns",
        ),
        (with(&|lines| lines.swap(third, fourth)), "missing"),
        (with(&|lines| lines[third] = lines[third].replace("ASBldmlkZW5jZQ", "ASBldmlkZW5jZg")), "evidence's digest"),
        (with(&|lines| lines[third] = lines[third].replace("?full", "?fool")), "target's digest"),
        (with(&|lines| _ = lines.remove(batch)), "the entry's hash"),
        (with(&|lines| _ = lines.pop()), "cut off"),
        (with(&|lines| lines[0] = lines[0].replace("UTC", "GMT")), "its digest"),
        (with(&|lines| lines.push("{}".to_owned())), "cut off"),
        (with(&|lines| lines.truncate(3)), "cut off"),
        (with(&|lines| lines[0] = lines[0].replace("archive/1", "archive/2")), "tollgate.archive/2"),
        (String::new(), "no archive"),
        ("{\"schema\":\"other\"}\n".to_owned(), "no archive"),
    ] {
        let other = ledger.dir().join("changed.jsonl");
        fs::write(&other, &changed).unwrap();
        let error = verify(&other, |_, _| None, |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains(said), "{said}: {error}");
        let finding = audit_with(&ledger, &[other]).finding.unwrap();
        assert!(matches!(finding.place, Place::Archive(_)) && finding.to_string().contains(said), "{said}: {finding}");
    }
    // One that is whole in itself, and not the one that the ledger was told of.
    let forged = tollgate_forged(&lines);
    let other = ledger.dir().join("forged.jsonl");
    fs::write(&other, forged).unwrap();
    verify(&other, |_, _| None, |_| Ok(())).unwrap();
    let finding = audit_with(&ledger, std::slice::from_ref(&other)).finding.unwrap();
    assert!(finding.what == "its signature", "{finding}");
    let unsigned = fs::read_to_string(&other).unwrap();
    let signature = unsigned.find("\"signature\":{").unwrap();
    fs::write(&other, format!("{}\"signature\":null}}}}\n", &unsigned[..signature])).unwrap();
    let finding = audit_with(&ledger, &[other]).finding.unwrap();
    assert_eq!(finding.what, "its digest");
}

/// The same archive with another time in its first line, its digest made anew.
fn tollgate_forged(lines: &[&str]) -> String {
    let last = lines.len() - 1;
    let mut body: Vec<String> = lines[..last].iter().map(|line| (*line).to_owned()).collect();
    body[0] = body[0].replace("\"made_ms\":", "\"made_ms\":1");
    let body = body.join("\n") + "\n";
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let digest = hex(&tollgate::ledger::chain::evidence_digest(body.as_bytes()));
    let at = lines[last].find("\"digest\":\"").unwrap() + 10;
    format!("{body}{}{digest}{}\n", &lines[last][..at], &lines[last][at + 64..])
}

#[test]
fn evidence_is_dropped_and_the_chain_holds() {
    let mut ledger = books();
    let before = whole(&ledger, &[]);
    let (path, _) = make(&ledger, "a.jsonl", Drops::Evidence);
    assert_eq!(let_go(&ledger, &path, Drops::Evidence, 3), 8);
    assert_eq!(ledger.number("SELECT count(*) FROM entries WHERE evidence IS NOT NULL OR target IS NOT NULL"), 6);
    let after = whole(&ledger, std::slice::from_ref(&path));
    assert_eq!(sums(&after), sums(&before));
    assert_eq!((after.dropped, after.archives, after.archived), (7, 1, 0));
    let verified = reader(&ledger).verify(&(BASE + 3).to_string()).unwrap().unwrap();
    assert!(verified.holds() && !verified.is_proven());
    // Twice is once, and the next archive begins behind it.
    assert_eq!(let_go(&ledger, &path, Drops::Evidence, 100), 0);
    let (_, next, _) = make_until(&ledger, "b.jsonl", TODAY + 3, Drops::Evidence).unwrap();
    assert_eq!(next.unwrap().parts[0].seqs, (9, 10));
    // Free parts of a file keep what was in them; a copy has none.
    ledger.close();
    let copy = ledger.dir().join("copy.sqlite");
    Copy::make(&ledger.path(), &copy).unwrap().name().unwrap();
    let file = fs::read(copy).unwrap();
    let text = b"https://shop.example/articles/1?full";
    let left = file.windows(text.len()).filter(|window| window == text).count();
    assert_eq!(left, 5);
    // What no archive took over stays.
    ledger.change("UPDATE entries SET evidence = NULL WHERE n & 255 = 9");
    assert_eq!(audit_with(&ledger, &[]).finding.unwrap().place, Place::Entry(BASE + 9));
}

#[test]
fn rows_are_dropped_and_both_together_are_the_books() {
    let mut ledger = books();
    let before = whole(&ledger, &[]);
    let report = reader(&ledger).report(By::Account, Days::ALL, None).unwrap();
    let (path, made) = make(&ledger, "a.jsonl", Drops::Rows);
    // The refund of day two is of a capture in it, whose intent it has, too.
    assert!(made.parts[0].referred.len() >= 2, "{:?}", made.parts[0].referred);
    assert!(let_go(&ledger, &path, Drops::Rows, 3) > 8);
    assert_eq!(ledger.number("SELECT min(n) & 255 FROM entries"), 9);
    let trusting = whole(&ledger, &[]);
    assert_eq!(sums(&trusting), sums(&before));
    assert_eq!((trusting.archived, trusting.trusted), (8, 8));
    let proved = whole(&ledger, std::slice::from_ref(&path));
    assert_eq!(sums(&proved), sums(&before));
    assert_eq!((proved.archives, proved.archived, proved.trusted), (1, 8, 0));
    assert_eq!(reader(&ledger).report(By::Account, Days::ALL, None).unwrap(), report);
    // The books go on: opened anew, sold, closed, archived again, listed, exported.
    ledger.reopen().unwrap();
    assert_eq!(ledger.store().health(), Health::Open);
    let receipt = buy(&ledger, "acme", "again", 9);
    ledger.outcome(receipt.n, Delivery::NotSent, true);
    ledger.reopen().unwrap();
    let rows = reader(&ledger).list(&Filter { limit: 100, ..Filter::default() }).unwrap();
    assert_eq!(rows.last().unwrap().n, BASE + 9);
    let mut exported = 0;
    reader(&ledger)
        .each(Days::ALL, |_| {
            exported += 1;
            true
        })
        .unwrap();
    assert_eq!((exported, reader(&ledger).count(Days::ALL).unwrap()), (rows.len(), rows.len() as u64));
    ledger.clock.advance(2 * DAY_MS);
    wait(ledger.store().close_days(TODAY + 4, Some(key()))).unwrap();
    for i in 0..4 {
        buy(&ledger, "acme", &format!("d{i}"), 3);
    }
    let before = whole(&ledger, std::slice::from_ref(&path));
    let (second, summary, _) = make_until(&ledger, "b.jsonl", TODAY + 4, Drops::Rows).unwrap();
    assert_eq!(summary.unwrap().parts[0].batches.0, made.parts[0].batches.1 + 1);
    let_go(&ledger, &second, Drops::Rows, 1000);
    let both = whole(&ledger, &[second.clone(), path]);
    assert_eq!(sums(&both), sums(&before));
    assert_eq!(both.trusted, 0);
    assert!(whole(&ledger, &[second]).trusted == 8);
    // Nobody can correct what is not there.
    assert!(order(&ledger, BASE + 3, What::Dispute).is_err());
    // The first entry that is left is proved from the archive's head.
    let first = reader(&ledger).list(&Filter { limit: 100, ..Filter::default() }).unwrap().last().unwrap().n;
    let verified = reader(&ledger).verify(&first.to_string()).unwrap().unwrap();
    assert!(
        verified.checks.iter().any(|check| check.name == "chain" && check.result == CheckResult::Ok),
        "{verified:?}"
    );
}

#[test]
fn a_correction_of_what_is_archived_is_whole_without_the_archive() {
    let ledger = books();
    let (path, _) = make(&ledger, "a.jsonl", Drops::Rows);
    let_go(&ledger, &path, Drops::Rows, 1000);
    let refunded = ledger.number("SELECT n FROM entries WHERE kind = 3");
    let verified = reader(&ledger).verify(&refunded.to_string()).unwrap().unwrap();
    let reference = verified.checks.iter().find(|check| check.name == "reference").unwrap();
    assert_eq!(reference.result, CheckResult::Unproven, "{verified:?}");
    // Were it of another amount, its capture's would tell, though that is archived.
    let sql = ledger.sql();
    sql.execute("UPDATE archives SET state = replace(state, ',10000,10000,\"exact\"', ',9999,9999,\"exact\"')", ())
        .unwrap();
    assert!(audit_with(&ledger, &[path]).finding.is_some());
}

/// Drops nothing where the file is not whole, and goes on wherever it was interrupted: the states of `archive/mod.rs`.
#[test]
fn a_crash_at_each_step_leaves_nothing_dropped_or_a_whole_archive() {
    let mut ledger = books();
    let before = whole(&ledger, &[]);
    // A part of the file.
    let path = ledger.dir().join("a.jsonl");
    fs::write(ledger.dir().join("a.jsonl.new"), "{\"schema\":\"tollgate.arch").unwrap();
    assert_eq!(sums(&whole(&ledger, &[])), sums(&before));
    make(&ledger, "a.jsonl", Drops::Rows);
    assert!(!ledger.dir().join("a.jsonl.new").exists());
    // A whole file, nothing noted.
    ledger.reopen().unwrap();
    assert_eq!(sums(&whole(&ledger, std::slice::from_ref(&path))), sums(&before));
    // Noted, nothing dropped; then a part; then rows without their batches.
    wait(ledger.store().note_archive(summary(&path).unwrap(), Drops::Rows)).unwrap();
    let mut steps = 0;
    loop {
        ledger.reopen().unwrap();
        for archives in [&[][..], std::slice::from_ref(&path)] {
            assert_eq!(sums(&whole(&ledger, archives)), sums(&before), "after {steps} steps");
        }
        // The command that is run again notes it again.
        wait(ledger.store().note_archive(summary(&path).unwrap(), Drops::Rows)).unwrap();
        if wait(ledger.store().drop_archived(2)).unwrap() == 0 {
            break;
        }
        steps += 1;
    }
    assert!(steps > 6, "{steps}");
}

/// Fails the disk at one point of a transaction, once.
struct FailsOnce(AtomicU32, bool);

impl FailsOnce {
    fn at(&self, before: bool) -> rusqlite::Result<()> {
        if self.1 == before && self.0.fetch_sub(1, Ordering::SeqCst) == 1 {
            return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), None));
        }
        Ok(())
    }
}

impl Faults for FailsOnce {
    fn before_commit(&self) -> rusqlite::Result<()> {
        self.at(true)
    }

    fn after_commit(&self) -> rusqlite::Result<()> {
        self.at(false)
    }
}

#[test]
fn a_disk_that_fails_drops_nothing_without_a_note() {
    for before in [true, false] {
        for step in 1..=3 {
            let mut ledger = books();
            let expected = whole(&ledger, &[]);
            let (path, _) = make(&ledger, "a.jsonl", Drops::Rows);
            ledger.close();
            let faults = Arc::new(FailsOnce(AtomicU32::new(step), before));
            ledger.store =
                Some(tollgate::ledger::ledger_store::LedgerStore::open_with_faults(ledger.options(), faults).unwrap());
            let mut failed = 0;
            let mut again = |done: Result<u64, ArchiveError>, ledger: &Ledger| match done {
                Ok(some) => Some(some),
                Err(ArchiveError::Unavailable(_)) => {
                    failed += 1;
                    assert_eq!(sums(&whole(ledger, std::slice::from_ref(&path))), sums(&expected));
                    while ledger.store().health() != Health::Open {
                        ledger.store().hurry();
                    }
                    None
                }
                Err(other) => panic!("{other}"),
            };
            while again(wait(ledger.store().note_archive(summary(&path).unwrap(), Drops::Rows)), &ledger).is_none() {}
            while again(wait(ledger.store().drop_archived(5)), &ledger) != Some(0) {}
            assert_eq!(failed, 1, "step {step}, before the commit: {before}");
            assert_eq!(sums(&whole(&ledger, std::slice::from_ref(&path))), sums(&expected));
            assert_eq!(ledger.number("SELECT min(n) & 255 FROM entries"), 9);
        }
    }
}

#[test]
fn what_has_no_end_yet_and_what_is_young_stays() {
    // A dispute of the third sale.
    let ledger = books();
    order(&ledger, BASE + 3, What::Dispute).unwrap();
    let (_, made, held) = make_until(&ledger, "a.jsonl", TODAY + 1, Drops::Rows).unwrap();
    assert_eq!(made.unwrap().parts[0].seqs, (1, 2));
    assert!(
        held.iter().any(|why| why.contains(&format!("from entry {} on", BASE + 3)) && why.contains("dispute")),
        "{held:?}"
    );
    order(&ledger, BASE + 3, What::Reject).unwrap();
    let (_, made, _) = make_until(&ledger, "b.jsonl", TODAY + 1, Drops::Rows).unwrap();
    assert_eq!(made.unwrap().parts[0].seqs, (1, 8));
    // An answer that is owed, and a payment whose end nobody knows.
    for unresolved in [false, true] {
        let mut ledger = Ledger::new();
        buy(&ledger, "acme", "a", 1);
        if unresolved {
            ledger.store().unknown(intend(&ledger, "t"));
        } else {
            settle(&ledger, intend(&ledger, "t"), true).unwrap();
        }
        ledger.reopen().unwrap();
        ledger.clock.advance(3 * DAY_MS);
        wait(ledger.store().close_days(TODAY + 2, None)).unwrap();
        (0..4).for_each(|i| _ = buy(&ledger, "acme", &format!("c{i}"), 7));
        let (_, made, held) = make_until(&ledger, "a.jsonl", TODAY + 2, Drops::Evidence).unwrap();
        // The intent of what is captured is no more needed.
        let last = if unresolved { 1 } else { 2 };
        assert_eq!(made.unwrap().parts[0].seqs, (1, last), "{held:?}");
        let why = if unresolved { "its payment is in hand" } else { "its answer is owed" };
        assert!(held[0].contains(why), "{held:?}");
    }
    // Closed at midnight, archived in the morning: less than a day old.
    let ledger = Ledger::new();
    buy(&ledger, "acme", "a", 1);
    ledger.clock.advance(DAY_MS - 1);
    wait(ledger.store().close_days(TODAY + 1, None)).unwrap();
    (0..4).for_each(|i| _ = buy(&ledger, "acme", &format!("c{i}"), 7));
    let (path, made, held) = make_until(&ledger, "a.jsonl", TODAY + 1, Drops::Rows).unwrap();
    assert!(made.is_none() && !path.exists() && held[0].contains("younger than the replay floor"), "{held:?}");
}

#[test]
fn an_archive_of_before_something_was_posted_about_it_is_stale() {
    let ledger = books();
    let (path, _) = make(&ledger, "a.jsonl", Drops::Rows);
    let disputed = order(&ledger, BASE + 3, What::Dispute).unwrap();
    let stale = wait(ledger.store().note_archive(summary(&path).unwrap(), Drops::Rows)).unwrap_err();
    assert!(stale.to_string().contains(&format!("entry {}", disputed.n)), "{stale}");
    // Of another ledger.
    let other = books();
    let stale = wait(other.store().note_archive(summary(&path).unwrap(), Drops::Rows)).unwrap_err();
    assert!(stale.to_string().contains("another ledger"), "{stale}");
    assert_eq!(wait(ledger.store().drop_archived(100)).unwrap(), 0);
}

#[test]
fn what_is_done_to_the_rows_of_archives_is_found() {
    let ledger = books();
    let (path, _) = make(&ledger, "a.jsonl", Drops::Rows);
    let_go(&ledger, &path, Drops::Rows, 1000);
    for (change, said) in [
        ("first_batch = 2", "its first batch"),
        ("first_seq = 2", "its first entry"),
        ("last_seq = last_seq - 1", "where its state stands"),
        ("head = zeroblob(32)", "the head of its state"),
        ("head_before = zeroblob(32)", "the head before it"),
        ("done_seq = 99", "how much is dropped"),
        ("state = '{}'", "readable"),
        ("digest = zeroblob(32)", "its digest"),
        ("state = replace(state, '\"captures\"', '\"x\"'), at_ms = 1", "where its state stands"),
    ] {
        let sql = ledger.sql();
        sql.execute_batch("CREATE TABLE kept AS SELECT * FROM archives").unwrap();
        sql.execute(&format!("UPDATE archives SET {change}"), ()).unwrap();
        let finding =
            audit_with(&ledger, std::slice::from_ref(&path)).finding.unwrap_or_else(|| panic!("not found: {change}"));
        assert!(finding.to_string().contains(said), "{change}: {finding}");
        sql.execute_batch("DELETE FROM archives; INSERT INTO archives SELECT * FROM kept; DROP TABLE kept").unwrap();
    }
    // Without the file, the chain tells.
    ledger.sql().execute("UPDATE archives SET digest = zeroblob(32)", ()).unwrap();
    assert_eq!(audit_with(&ledger, &[]).finding.unwrap().what, "its digest, as a chain has it");
    // Without the row the chain has no beginning.
    ledger.sql().execute("DELETE FROM archives", ()).unwrap();
    assert!(audit_with(&ledger, &[]).finding.is_some());
}

#[test]
fn a_checkpoint_of_before_an_archive_goes_on_behind_it() {
    let ledger = books();
    let (_, end) = reader(&ledger).audit_from(&AuditOptions::default(), |_| ()).unwrap();
    let mut early: Vec<Checkpoint> = Vec::new();
    reader(&ledger).audit_from(&AuditOptions::default(), |at| early.push(at.checkpoint())).unwrap();
    early.extend(end);
    let before = whole(&ledger, &[]);
    let (path, _) = make(&ledger, "a.jsonl", Drops::Rows);
    let_go(&ledger, &path, Drops::Rows, 1000);
    for from in &early {
        for only_new in [false, true] {
            let options = AuditOptions { from: Some(from), only_new, ..AuditOptions::default() };
            let report = reader(&ledger).audit_from(&options, |_| ()).unwrap().0;
            assert_eq!(report.finding, None);
            assert_eq!(sums(&report), sums(&before));
        }
    }
}
