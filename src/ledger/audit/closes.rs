//! Closed days: contiguous, their heads those of the chains, signed by whom they say, nothing posted in them later, and their
//! statements what the entries add up to.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{Audit, Place, Stop, finding, same, same_hash};
use crate::{
    ledger::{
        chain::Hash,
        close::{Close, HeadRecord},
        closing::{CLOSE_COLUMNS, read_close},
        day::day_text,
        entry::is_settled_at_once,
        rollup::{RollupKey, Sums},
        sql::{Session, params},
        statements::{StatementState, is_reason, why_paid},
    },
    wire::jwk::PublicKey,
};

/// Reads the closes and checks what they say of each other; whose they are, as far as the keys can tell.
pub(super) fn read(audit: &mut Audit<'_>) -> Result<Vec<Close>, Stop> {
    let select = format!("SELECT {CLOSE_COLUMNS} FROM closes ORDER BY until");
    let mut statement = audit.connection.prepare(&select)?;
    let mut rows = statement.query(&[])?;
    let mut closes: Vec<Close> = Vec::new();
    while let Some(row) = rows.next()? {
        let place = Place::Close(row.get(0)?);
        audit.place = place.clone();
        let close = read_close(&row)?;
        let slots = |close: &Close| close.heads.iter().map(|record| record.slot).collect::<Vec<_>>();
        let ascending = slots(&close).windows(2).all(|two| two[0] < two[1]);
        let known = closes.last().map(slots).unwrap_or_default();
        if slots(&close).is_empty() || !ascending || !known.iter().all(|slot| slots(&close).contains(slot)) {
            let found = format!("{:?}", slots(&close));
            return Err(finding(place, "the writers of its heads", format!("{known:?} and later ones"), found));
        }
        if let Some(last) = closes.last() {
            same(
                place.clone(),
                "its first day, after the close before",
                day_text(last.until),
                day_text(close.from_day),
            )?;
            if close.at_ms < last.at_ms {
                return Err(finding(place, "its time", format!("at least {}", last.at_ms), close.at_ms));
            }
        } else if close.from_day > close.until {
            let expected = format!("at most {}", day_text(close.until));
            return Err(finding(place, "its first day", expected, day_text(close.from_day)));
        }
        audit.report.closes += 1;
        signature(audit, &close, place)?;
        closes.push(close);
    }
    Ok(closes)
}

fn signature(audit: &mut Audit<'_>, close: &Close, place: Place) -> Result<(), Stop> {
    let Some(by) = close.signature else { return Ok(()) };
    audit.report.signed += 1;
    let keys = audit.options.keys;
    if keys.is_empty() {
        return Ok(());
    }
    let thumbprint = URL_SAFE_NO_PAD.encode(by.thumbprint);
    let Some(key) = keys.iter().find(|key| key.thumbprint() == thumbprint) else {
        let known: Vec<&str> = keys.iter().map(PublicKey::thumbprint).collect();
        return Err(finding(place, "the key that signed it", known.join(" or "), thumbprint));
    };
    if !key.verifies(&close.signed_bytes(audit.ledger_id), &by.signature) {
        return Err(finding(place, "its signature", format!("one of {thumbprint} over it"), "another"));
    }
    audit.report.verified += 1;
    Ok(())
}

/// The closes as the chain of one writer is walked: which comes next, and which days are closed by now.
pub(super) struct Passed {
    /// With what they say of this writer; the next one last.
    ahead: Vec<(i64, i64, HeadRecord)>,
    /// Nothing may be posted before it.
    pub(super) open_day: i64,
}

impl Passed {
    pub(super) fn new(closes: &[Close], slot: i64) -> Passed {
        let of = |close: &Close| {
            let record = close.heads.iter().find(|record| record.slot == slot)?;
            Some((close.until, close.at_ms, *record))
        };
        Passed { ahead: closes.iter().rev().filter_map(of).collect(), open_day: i64::MIN }
    }

    /// The batches before this one were walked by an earlier audit, which held them against the closes of its time.
    pub(super) fn skip(&mut self, batch_seq: i64) {
        while let Some((until, ..)) = self.ahead.pop_if(|(_, _, record)| record.batch_seq < batch_seq) {
            self.open_day = until;
        }
    }

    /// A batch has ended here, or the chain begins: closes made at this point say so.
    pub(super) fn batch(&mut self, batch_seq: i64, seq: i64, hash: &Hash, at_ms: i64) -> Result<(), Stop> {
        while let Some((until, closed_ms, record)) = self.ahead.pop_if(|(_, _, record)| record.batch_seq <= batch_seq) {
            let place = Place::Close(until);
            same(place.clone(), "the batches before it", record.batch_seq, batch_seq)?;
            same(place.clone(), "the entries before it", seq, record.seq)?;
            same_hash(place.clone(), "its head", hash, &record.head)?;
            if closed_ms < at_ms {
                return Err(finding(place, "its time", format!("at least {at_ms}"), closed_ms));
            }
            self.open_day = until;
        }
        Ok(())
    }

    /// The chain has ended.
    pub(super) fn end(mut self, batches: i64) -> Result<(), Stop> {
        match self.ahead.pop() {
            None => Ok(()),
            Some((until, _, record)) => {
                let expected = format!("at most {batches}");
                Err(finding(Place::Close(until), "the batches before it", expected, record.batch_seq))
            }
        }
    }
}

/// What the entries of a span add up to, for one account and asset.
#[derive(Default)]
struct Expected {
    gross: i64,
    corrections: i64,
    /// Something in it is owed.
    on_credit: bool,
}

/// Every statement, held against the sums that were recomputed from entries.
pub(super) fn statements<'s>(
    audit: &mut Audit<'_>,
    closes: &[Close],
    sums: impl Iterator<Item = (&'s RollupKey<String>, &'s Sums)>,
) -> Result<u64, Stop> {
    let mut expected: BTreeMap<(i64, &str, &str), Expected> = BTreeMap::new();
    for (key, sums) in sums {
        let Some(close) = closes.get(closes.partition_point(|close| close.until <= key.book_day)) else { continue };
        // A refund that failed on the day on which it was sent.
        if *sums == Sums::default() {
            continue;
        }
        if key.book_day < close.from_day {
            let place = Place::Close(close.until);
            let expected = format!("at most {}", day_text(key.book_day));
            return Err(finding(place, "its first day", expected, day_text(close.from_day)));
        }
        let expected = expected.entry((close.until, &key.account, &key.asset)).or_default();
        expected.gross = expected.gross.saturating_add(sums.captured);
        expected.corrections = expected.corrections.saturating_add(sums.voided).saturating_add(sums.refunded);
        expected.on_credit |= !is_settled_at_once(&key.scheme);
    }
    let connection = audit.connection;
    let mut statement = connection.prepare(
        "SELECT number, until, account, asset, gross, corrections, total, head FROM statements ORDER BY number",
    )?;
    let mut rows = statement.query(&[])?;
    let mut number = 0;
    for ((until, account, asset), expected) in &expected {
        number += 1;
        let place = Place::Statement(number);
        audit.place = place.clone();
        let whose = |until: i64, account: &str, asset: &str| format!("{account}, {asset}, before {}", day_text(until));
        let owner = whose(*until, account, asset);
        let Some(row) = rows.next()? else { return Err(finding(place, "the row", owner, "none")) };
        same(place.clone(), "its number", number, row.get(0)?)?;
        let found = whose(row.get(1)?, &row.get::<String>(2)?, &row.get::<String>(3)?);
        same(place.clone(), "whose it is", owner, found)?;
        same(place.clone(), "its gross", expected.gross, row.get(4)?)?;
        same(place.clone(), "its corrections", expected.corrections, row.get(5)?)?;
        same(place.clone(), "its total", expected.gross.saturating_sub(expected.corrections), row.get(6)?)?;
        let Some(close) = closes.iter().find(|close| close.until == *until) else { continue };
        same_hash(place.clone(), "its head", &close.head(), &row.get::<Hash>(7)?)?;
        let why_paid = why_paid(asset, !expected.on_credit);
        events(connection, number, close.at_ms, why_paid, &place)?;
    }
    if let Some(row) = rows.next()? {
        return Err(finding(Place::Statement(row.get(0)?), "the row", "none", "one"));
    }
    let stray =
        "SELECT coalesce(max(number), 0) FROM statement_events WHERE number NOT IN (SELECT number FROM statements)";
    match connection.cell(stray, &[])? {
        0 => Ok(number.unsigned_abs()),
        stray => Err(finding(Place::Statement(stray), "its events", "none, for there is no statement", "some")),
    }
}

/// Closed with its days, then each step one that was allowed. What nobody owes is paid from the start, and says why.
fn events(
    connection: &Session,
    number: i64,
    closed_ms: i64,
    why_paid: Option<&str>,
    place: &Place,
) -> Result<(), Stop> {
    let on_credit = why_paid.is_none();
    let mut statement =
        connection.prepare("SELECT i, state, at_ms, reason FROM statement_events WHERE number = ?1 ORDER BY i")?;
    let mut rows = statement.query(params![number])?;
    let (mut i, mut before, mut at_ms) = (0_i64, None, closed_ms);
    while let Some(row) = rows.next()? {
        i += 1;
        same(place.clone(), "its next event's number", i, row.get(0)?)?;
        let name: String = row.get(1)?;
        let next: &[StatementState] = match before {
            None => &[StatementState::Closed],
            Some(StatementState::Closed) if !on_credit => &[StatementState::Paid],
            Some(state) => StatementState::next(state),
        };
        let state = StatementState::from_name(&name).filter(|state| next.contains(state));
        let Some(state) = state else {
            let names: Vec<&str> = next.iter().map(|state| state.name()).collect();
            let expected = if names.is_empty() { "none".to_owned() } else { names.join(" or ") };
            return Err(finding(place.clone(), "its next event", expected, name));
        };
        let found_ms: i64 = row.get(2)?;
        // What the close has made of it itself is of its time.
        let is_the_closes = before.is_none() || (i == 2 && !on_credit);
        if found_ms < at_ms || (is_the_closes && found_ms != closed_ms) {
            return Err(finding(place.clone(), "the time of its next event", format!("at least {at_ms}"), found_ms));
        }
        let reason: Option<&str> = row.get(3)?;
        if before.is_some() && is_the_closes && reason != why_paid {
            let expected = why_paid.unwrap_or_default();
            return Err(finding(place.clone(), "the reason of its next event", expected, format!("{reason:?}")));
        }
        // The close itself has none; whoever takes a step says why.
        if reason.is_some() != before.is_some() || reason.is_some_and(|reason| !is_reason(reason)) {
            let expected = if before.is_none() { "none" } else { "a line of text" };
            return Err(finding(place.clone(), "the reason of its next event", expected, format!("{reason:?}")));
        }
        (before, at_ms) = (Some(state), found_ms);
    }
    match before {
        None => Err(finding(place.clone(), "its first event", "closed", "none")),
        Some(StatementState::Closed) if !on_credit => Err(finding(place.clone(), "its next event", "paid", "none")),
        Some(_) => Ok(()),
    }
}
