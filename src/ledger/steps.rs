//! The refunds and disputes of a payment, read by their keys: numbers are dense, so the first that is missing ends them.

use super::{
    correction::{Matter, Standing, State, number, refunded},
    entry::{Kind, PostingKey},
    evidence::Note,
    settlements::find,
    sql::{Session, SqlResult, params},
};
use crate::payment::key::PaymentKey;

/// All of one kind, in order of their numbers.
pub(super) fn matters(connection: &Session, payment: &PaymentKey, kind: Kind) -> SqlResult<Vec<Matter>> {
    let mut found = Vec::new();
    for which in 1..=u8::MAX {
        let Some(begun) = step(connection, &PostingKey::new(kind, payment, number(which, false)))? else { break };
        let ended = step(connection, &PostingKey::new(kind, payment, number(which, true)))?;
        let state = ended.as_ref().map_or(begun.status, |ended| ended.status);
        let note = begun.evidence.as_deref().and_then(|bytes| Note::decode(bytes).ok()).unwrap_or_default();
        found.push(Matter {
            number: which,
            n: begun.n,
            at_ms: begun.at_ms,
            amount: begun.amount,
            // A number that no step has counts as what holds most back.
            state: State::from_code(kind, state).unwrap_or(if kind == Kind::Refund {
                State::Sent
            } else {
                State::Open
            }),
            ended_n: ended.map(|ended| ended.n),
            reference: note.reference,
            reason: note.reason,
            by: note.by,
            proof: note.proof,
        });
    }
    Ok(found)
}

/// Whether something of a capture was given back, or is on its way: then its answer is not owed any more.
pub(super) fn is_refunded(connection: &Session, payment: &PaymentKey) -> SqlResult<bool> {
    Ok(refunded(&matters(connection, payment, Kind::Refund)?) > 0)
}

/// What stands about a capture.
pub(super) fn standing(connection: &Session, capture: &super::captured::Captured) -> SqlResult<Standing> {
    let payment = capture.key.payment();
    let find = |kind| find(connection, &PostingKey::new(kind, &payment, 0));
    Ok(Standing {
        n: capture.n,
        scheme: capture.scheme.clone(),
        asset: capture.asset.clone(),
        amount: capture.amount,
        at_ms: capture.at_ms,
        void_n: find(Kind::Void)?,
        redelivered_n: find(Kind::Redelivered)?,
        refunds: matters(connection, &payment, Kind::Refund)?,
        disputes: matters(connection, &payment, Kind::Dispute)?,
    })
}

/// What an entry is that is no capture: its kind, and the capture that it is about.
pub(super) fn other(connection: &Session, n: i64) -> SqlResult<Option<(i64, Option<i64>)>> {
    let other = "SELECT kind, ref_n FROM entries WHERE n = ?1";
    connection.first(other, params![n], |row| Ok((row.get(0)?, row.get(1)?)))
}

struct Posted {
    n: i64,
    amount: i64,
    status: i64,
    at_ms: i64,
    evidence: Option<Vec<u8>>,
}

fn step(connection: &Session, key: &PostingKey) -> SqlResult<Option<Posted>> {
    let step = "SELECT n, amount, status, at_ms, evidence FROM entries WHERE key = ?1";
    connection.first(step, params![key.as_bytes()], |row| {
        Ok(Posted {
            n: row.get(0)?,
            amount: row.get(1)?,
            status: row.get::<Option<i64>>(2)?.unwrap_or_default(),
            at_ms: row.get(3)?,
            evidence: row.get(4)?,
        })
    })
}
