//! What of the books may be archived: a beginning of each writer's chain, up to the first thing that must stay.

use std::collections::BTreeMap;

use super::{Drops, Part, Referred, rows};
use crate::ledger::{
    audit::Walked,
    chain,
    correction::State,
    entry::{EntryNumber, Kind, PostingKey},
    opening::SKEW_MAX_MS,
    passes,
    report::{Days, ranges},
    sql::{Session, SqlResult, params},
};
use crate::payment::key::PaymentKey;

/// No answer takes longer than this to be given, and what became of one is posted then.
const TOLD_MS: i64 = 86_400_000;

/// What of a writer's chain is archived, and where that begins.
pub(super) struct Selected {
    pub(super) slot: i64,
    pub(super) batches: (i64, i64),
    /// The chain before it.
    pub(super) start: Walked,
}

/// The beginning of each chain that may be archived, and why it ends before the day that was asked for.
pub(super) fn select(
    session: &Session,
    ledger_id: &[u8; 16],
    until: i64,
    drops: Drops,
    now_ms: u64,
    owed: &[i64],
) -> SqlResult<(Vec<Selected>, Vec<String>)> {
    let floor_ms: i64 = session.cell("SELECT replay_floor_ms FROM book", &[])?;
    let skew_ms = i64::try_from(SKEW_MAX_MS).unwrap_or(i64::MAX);
    let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
    let before_ms = floor_ms.saturating_sub(skew_ms).min(now_ms.saturating_sub(TOLD_MS));
    let good = if drops == Drops::Rows { passes::good(session, now_ms)? } else { Vec::new() };
    let (needed, mut held) = needed(session, owed, &good)?;
    let kept = rows::all(session)?;
    let days: BTreeMap<i64, i64> = ranges(session, Days { since: i64::MIN, until })?
        .into_iter()
        .map(|(_, last)| (EntryNumber::from_n(last).slot, last))
        .collect();
    let heads: Vec<(i64, i64, i64)> =
        session.all("SELECT slot, seq, batch_seq FROM writers ORDER BY slot", &[], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    let mut selected = Vec::new();
    for (slot, seq, batch_seq) in heads {
        let last_n = EntryNumber { slot, seq }.n();
        let of_day = days.get(&slot).copied().unwrap_or_else(|| EntryNumber { slot, seq: 0 }.n());
        let limit = of_day.min(last_n - 1).min(needed.get(&slot).map_or(i64::MAX, |n| n - 1));
        let of = |kept: &&rows::Kept| kept.part.slot == slot && (drops == Drops::Evidence || kept.drops == Drops::Rows);
        let start = kept.iter().filter(of).max_by_key(|kept| kept.part.batches.1);
        let start =
            start.map_or_else(|| Walked::begin(slot, chain::genesis(ledger_id, slot)), |kept| kept.part.state.clone());
        let mut last = start.batch_seq;
        let batches = "SELECT batch_seq, n_last, at_ms FROM batches WHERE slot = ?1 AND batch_seq > ?2 AND batch_seq <= ?3 \
                       ORDER BY batch_seq";
        let mut statement = session.prepare(batches)?;
        let mut found = statement.query(params![slot, start.batch_seq, batch_seq - 2])?;
        while let Some(row) = found.next()? {
            let at_ms: i64 = row.get(2)?;
            if at_ms >= before_ms {
                held.push(format!("writer {slot}: what is younger than the replay floor or 24 hours stays"));
                break;
            }
            if row.get::<Option<i64>>(1)?.is_some_and(|n| n > limit) {
                break;
            }
            last = row.get(0)?;
        }
        if last > start.batch_seq {
            selected.push(Selected { slot, batches: (start.batch_seq + 1, last), start });
        }
    }
    Ok((selected, held))
}

/// The first entry of each writer that something without an end is about, and what that is.
fn needed(session: &Session, owed: &[i64], good: &[i64]) -> SqlResult<(BTreeMap<i64, i64>, Vec<String>)> {
    let mut first: BTreeMap<i64, (i64, &str)> = BTreeMap::new();
    let mut need = |n: i64, why: &'static str| {
        let slot = EntryNumber::from_n(n).slot;
        let least = first.entry(slot).or_insert((n, why));
        if n < least.0 {
            *least = (n, why);
        }
    };
    for n in owed {
        need(*n, "its answer is owed");
    }
    for n in good {
        need(*n, "a pass that it bought is good");
    }
    let claimed = "SELECT key FROM claims WHERE state IN ('r', 's', 'u', 'o', 'v')";
    for key in session.all(claimed, &[], |row| row.get::<Vec<u8>>(0))? {
        let Some(key) = PaymentKey::from_bytes(&key) else { continue };
        for kind in [Kind::Intent, Kind::Capture] {
            let key = PostingKey::new(kind, &key, 0);
            let find = "SELECT n FROM entries WHERE key = ?1";
            if let Some(n) = session.first(find, params![key.as_bytes()], |row| row.get(0))? {
                need(n, "its payment is in hand");
            }
        }
    }
    // The end of a refund or dispute has its beginning's key with another last byte.
    let mut open: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
    let steps = "SELECT key, kind, status, ref_n FROM entries WHERE kind IN (3, 8)";
    let mut steps = session.prepare(steps)?;
    let mut steps = steps.query(&[])?;
    let mut ended: Vec<Vec<u8>> = Vec::new();
    while let Some(row) = steps.next()? {
        let key: Vec<u8> = row.get(0)?;
        let Some(kind) = Kind::from_number(row.get(1)?) else { continue };
        let state = State::from_code(kind, row.get::<Option<i64>>(2)?.unwrap_or_default());
        let Some((last, which)) = key.split_last() else { continue };
        match (last, state) {
            (0, Some(State::Sent | State::Open)) => {
                _ = open.insert(which.to_vec(), row.get::<Option<i64>>(3)?.unwrap_or_default())
            }
            (1, _) => ended.push(which.to_vec()),
            _ => {}
        }
    }
    ended.iter().for_each(|which| _ = open.remove(which));
    for n in open.into_values() {
        need(n, "a refund or dispute of it has no end");
    }
    let held =
        first.iter().map(|(slot, (n, why))| format!("writer {slot}: from entry {n} on everything stays, for {why}"));
    let held = held.collect();
    Ok((first.into_iter().map(|(slot, (n, _))| (slot, n)).collect(), held))
}

/// Postings in the parts that postings outside of them build on, and all top-ups, whose references must not be had twice. Each
/// part gets its own.
pub(super) fn referred(session: &Session, parts: &mut [Part]) -> SqlResult<()> {
    // Plain captures on credit build on nothing.
    let rest = "SELECT n, key FROM entries WHERE kind <> 1 OR scheme IN ('exact', 'upto')";
    let mut statement = session.prepare(rest)?;
    let mut rest = statement.query(&[])?;
    let position = |parts: &[Part], n: i64| {
        let at = EntryNumber::from_n(n);
        parts.iter().position(|part| part.slot == at.slot && (part.seqs.0..=part.seqs.1).contains(&at.seq))
    };
    let find = "SELECT n, key, amount, list_amount, scheme, status FROM entries WHERE key = ?1 \
                OR (key >= ?2 AND key <= ?3) OR (key >= ?4 AND key <= ?5) OR key = ?6 OR key = ?7 OR key = ?8 OR key = ?9 OR key = ?10 OR key = ?11";
    while let Some(row) = rest.next()? {
        let Some(key) = PostingKey::from_bytes(row.get(1)?) else { continue };
        if position(parts, row.get(0)?).is_some() && key.kind() != Kind::Topup {
            continue;
        }
        let payment = key.payment();
        let of = |kind, number| PostingKey::new(kind, &payment, number);
        let keys = [
            of(Kind::Capture, 0),
            of(Kind::Refund, 0),
            of(Kind::Refund, u16::MAX),
            of(Kind::Dispute, 0),
            of(Kind::Dispute, u16::MAX),
            of(Kind::Intent, 0),
            of(Kind::Failed, 0),
            of(Kind::Owed, 0),
            of(Kind::Redelivered, 0),
            of(Kind::Lapsed, 0),
            of(Kind::Topup, 0),
        ];
        let values: Vec<_> = keys.iter().map(|key| key.as_bytes().into()).collect();
        let found = session.all(find, &values, |row| {
            Ok((PostingKey::from_bytes(row.get(1)?), row.get(0)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
        })?;
        for (key, n, amount, list_amount, scheme, status) in found {
            let (Some(key), Some(at)) = (key, position(parts, n)) else { continue };
            let posting = Referred { n, key, amount, list_amount, scheme, status };
            if !parts[at].referred.contains(&posting) {
                parts[at].referred.push(posting);
            }
        }
    }
    Ok(())
}
