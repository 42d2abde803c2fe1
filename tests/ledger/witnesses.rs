//! What a chain says of closes and of steps of statements: whatever is done to them is found, by an audit from the beginning
//! and by one that goes on where an earlier one was, and ledgers of before it was said are made up for.

use tollgate::ledger::{
    audit::{AuditOptions, AuditReport, Checkpoint, Finding, Place},
    close::{Close, HeadRecord},
    statements::{Mark, MarkError, StatementState},
};

use crate::{
    closes,
    closing::{DAY_MS, TODAY, buy, close},
    support::*,
};

fn audit(ledger: &Ledger, from: Option<&Checkpoint>, only_new: bool) -> (AuditReport, Option<Checkpoint>) {
    let options = AuditOptions { from, only_new, ..AuditOptions::default() };
    ledger.reader().audit_from(&options, |_| ()).unwrap()
}

/// A checkpoint, as a file keeps it.
fn checkpoint(ledger: &Ledger) -> Checkpoint {
    let (report, end) = audit(ledger, None, false);
    assert_eq!(report.finding, None);
    Checkpoint::parse(&end.unwrap().to_text()).unwrap()
}

fn mark(ledger: &Ledger, number: i64, state: StatementState) -> Result<(), MarkError> {
    wait(ledger.store().mark(Mark { number, state, reason: "why".to_owned() }))
}

/// Two closes and statement 1 sent, as in [`closes::books`]; then a third close, statement 1 disputed, 4 sent and paid.
fn books(between: impl FnOnce(&Ledger)) -> Ledger {
    let mut ledger = closes::books();
    between(&ledger);
    ledger.reopen().unwrap();
    ledger.advance(DAY_MS);
    close(&ledger, TODAY + 3).unwrap();
    mark(&ledger, 1, StatementState::Disputed).unwrap();
    mark(&ledger, 4, StatementState::Sent).unwrap();
    mark(&ledger, 4, StatementState::Paid).unwrap();
    buy(&ledger, "acme", "last", 1);
    ledger.close();
    ledger
}

/// Everything that was made of days from this close on is taken out, as if they had never been closed.
fn unclosed(from: i64, until: i64) -> String {
    format!(
        "DELETE FROM statement_events WHERE number IN (SELECT number FROM statements WHERE until >= {from}); \
         DELETE FROM statements WHERE until >= {from}; DELETE FROM closes WHERE until >= {from}; \
         UPDATE writers SET open_day = {until}"
    )
}

/// What is done, where it is found, and what is said of it.
fn damages() -> Vec<(String, Place, &'static str)> {
    let event = |set: &str, number, i| format!("UPDATE statement_events SET {set} WHERE number = {number} AND i = {i}");
    let (one, four) = (Place::Statement(1), Place::Statement(4));
    let as_said = "its digest, as a chain has it";
    let reason = "reason = 'something else'";
    vec![
        // Closes and all that came of them.
        (unclosed(0, 0), Place::Close(TODAY + 1), "the row: expected one, for writer 1 has written it, found none"),
        (unclosed(TODAY + 3, TODAY + 2), Place::Close(TODAY + 3), "the row: expected one"),
        (
            format!("UPDATE closes SET from_day = from_day - 1 WHERE until = {}", TODAY + 1),
            Place::Close(TODAY + 1),
            as_said,
        ),
        (
            format!(
                "UPDATE closes SET at_ms = at_ms + 1 WHERE until = {}; UPDATE statement_events SET at_ms = at_ms + 1 \
                  WHERE number = 4",
                TODAY + 3
            ),
            Place::Close(TODAY + 3),
            as_said,
        ),
        (format!("UPDATE closes SET signature = NULL WHERE until = {}", TODAY + 1), Place::Close(TODAY + 1), as_said),
        (
            format!("UPDATE closes SET signature = zeroblob(96) WHERE until = {}", TODAY + 3),
            Place::Close(TODAY + 3),
            as_said,
        ),
        // Steps.
        (
            "DELETE FROM statement_events WHERE number = 1 AND i = 3".to_owned(),
            one.clone(),
            "writer 1 has written it, event 3, found none",
        ),
        ("DELETE FROM statement_events WHERE number = 1 AND i > 1".to_owned(), one.clone(), "event 2, found none"),
        (event(reason, 1, 2), one.clone(), "(writer 1, event 2)"),
        (event(reason, 4, 3), four.clone(), "(writer 1, event 3)"),
        (event("at_ms = at_ms + 1", 1, 3), one.clone(), as_said),
        (event("state = 'paid'", 1, 3), one.clone(), as_said),
        (event("state = 'disputed'", 4, 3), four.clone(), as_said),
        (
            "INSERT INTO statement_events VALUES (1, 4, 'paid', 2000000000000, 'by pigeon')".to_owned(),
            one,
            "what a chain says of it: expected its digest, event 4, found nothing",
        ),
        // What a close itself says of a transfer.
        (event(reason, 2, 2), Place::Statement(2), "the reason of its next event: expected settled on chain"),
        (event("at_ms = at_ms + 1", 2, 2), Place::Statement(2), "the time of its next event"),
    ]
}

#[track_caller]
fn holds(finding: Option<Finding>, sql: &str, place: &Place, said: &str) {
    let finding = finding.unwrap_or_else(|| panic!("not found: {sql}"));
    assert_eq!(finding.place, *place, "{sql}: {finding}");
    assert!(finding.to_string().contains(said), "{sql}: {finding}");
}

#[test]
fn what_is_done_to_closes_and_steps_is_found() {
    let ledger = books(|_| ());
    assert_eq!(audit(&ledger, None, false).0.finding, None);
    for (sql, place, said) in damages() {
        let ledger = books(|_| ());
        ledger.change(&sql);
        holds(audit(&ledger, None, false).0.finding, &sql, &place, said);
    }
}

/// Done before what an earlier audit has seen, or after it.
#[test]
fn an_audit_that_goes_on_finds_it_too() {
    for (sql, place, said) in damages() {
        let mut early = None;
        let ledger = books(|ledger| early = Some(checkpoint(ledger)));
        let late = checkpoint(&ledger);
        ledger.change(&sql);
        for from in [&early.unwrap(), &late] {
            for only_new in [false, true] {
                holds(audit(&ledger, Some(from), only_new).0.finding, &sql, &place, said);
            }
        }
    }
}

#[test]
fn a_close_that_nobody_made_is_found() {
    let mut ledger = Ledger::new();
    buy(&ledger, "acme", "a", 10_000);
    ledger.advance(DAY_MS);
    close(&ledger, TODAY + 1).unwrap();
    ledger.close();
    let number = |column| ledger.number(&format!("SELECT {column} FROM writers"));
    let head = bytes(&ledger.rows("SELECT head FROM writers")[0][0]).try_into().unwrap();
    let heads = vec![HeadRecord { slot: 1, seq: number("seq"), batch_seq: number("batch_seq"), head }];
    let made = Close { from_day: TODAY + 1, until: TODAY + 2, at_ms: number("at_ms"), heads, signature: None };
    ledger.change(&format!(
        "INSERT INTO closes VALUES ({}, {}, {}, {}, NULL); UPDATE writers SET open_day = {}",
        made.until,
        made.from_day,
        made.at_ms,
        literal(&made.encode_heads()),
        made.until
    ));
    let nothing = "what a chain says of it: expected its digest, found nothing";
    holds(audit(&ledger, None, false).0.finding, "a close", &Place::Close(TODAY + 2), nothing);
}

/// Takes away what chains say at their ends, and what says that they should: a ledger as earlier versions left it.
fn of_layout_2(ledger: &Ledger) {
    let seq = "SELECT max(batch_seq) FROM batches WHERE outcomes IS NULL OR substr(outcomes, 1, 1) <> x'ff'";
    let last = ledger.number(seq);
    ledger.change(&format!(
        "DELETE FROM batches WHERE batch_seq > {last}; UPDATE writers SET batch_seq = {last}, \
         head = (SELECT head FROM batches WHERE batch_seq = {last}), \
         at_ms = (SELECT at_ms FROM batches WHERE batch_seq = {last})"
    ));
    ledger.home.becomes_layout(2);
}

#[test]
fn what_an_earlier_layout_has_closed_is_witnessed_when_it_is_opened() {
    let made = || {
        let mut ledger = Ledger::new();
        buy(&ledger, "acme", "a", 10_000);
        ledger.advance(DAY_MS);
        close(&ledger, TODAY + 1).unwrap();
        mark(&ledger, 1, StatementState::Sent).unwrap();
        mark(&ledger, 1, StatementState::Paid).unwrap();
        ledger.close();
        of_layout_2(&ledger);
        ledger
    };
    let mut ledger = made();
    let batches = ledger.number("SELECT count(*) FROM batches");
    assert_eq!(audit(&ledger, None, false).0.finding, None, "one that is read is as it was");
    let before = checkpoint(&ledger);
    ledger.reopen().unwrap();
    assert_eq!(ledger.number("SELECT count(*) FROM batches"), batches + 1);
    buy(&ledger, "acme", "b", 10_000);
    ledger.advance(DAY_MS);
    close(&ledger, TODAY + 2).unwrap();
    ledger.reopen().unwrap();
    ledger.close();
    assert_eq!(ledger.number("SELECT count(*) FROM batches"), batches + 3);
    assert_eq!(audit(&ledger, None, false).0.finding, None);
    assert_eq!(audit(&ledger, Some(&before), false).0.finding, None);
    // And from there on nothing can be done to it, not even by calling it one of before.
    for is_back in [false, true] {
        let mut ledger = made();
        ledger.reopen().unwrap();
        ledger.close();
        ledger.change("UPDATE statement_events SET reason = 'by pigeon' WHERE i = 2");
        if is_back {
            ledger.home.becomes_layout(2);
        }
        holds(audit(&ledger, None, false).0.finding, "reason", &Place::Statement(1), "event 2");
        ledger.change(&unclosed(0, 0));
        holds(audit(&ledger, None, false).0.finding, "all", &Place::Close(TODAY + 1), "the row: expected one");
    }
    // One without a close has nothing to make up for.
    let mut ledger = Ledger::new();
    buy(&ledger, "acme", "a", 10_000);
    ledger.close();
    ledger.home.becomes_layout(2);
    ledger.reopen().unwrap();
    assert_eq!(ledger.number("SELECT count(*) FROM batches"), 1);
}
