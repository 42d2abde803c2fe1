//! Refunds and disputes: each begins before it ends, numbers are dense, and no more goes back than was charged.

use super::{
    Place, Stop, finding,
    references::{Known, stands_before},
    same,
};
use crate::ledger::{
    archive::Referred,
    correction::{State, number},
    entry::{Entry, Kind, PostingKey, is_settled_at_once},
};

/// Checks a step of a refund or dispute against what stands before it.
pub(super) fn check(known: &Known<'_>, entry: &Entry<'_>) -> Result<(), Stop> {
    let place = || Place::Entry(entry.n);
    let before = |kind, number| earlier(known, entry, kind, number);
    let Some(capture) = before(Kind::Capture, 0)? else {
        return Err(finding(place(), "the capture that it is about", "an earlier entry of its payment", "none"));
    };
    let named = entry.ref_n.map_or_else(|| "none".to_owned(), |n| n.to_string());
    same(place(), "the capture that it names", capture.n.to_string(), named)?;
    if entry.kind == Kind::Refund && !is_settled_at_once(entry.scheme) {
        return Err(finding(place(), "its scheme", "one that is settled at once", entry.scheme));
    }
    let [which, step] = entry.key.number().to_be_bytes();
    let state = State::from_code(entry.kind, entry.status.unwrap_or_default());
    let allowed: &[State] = match (entry.kind, step) {
        (Kind::Refund, 0) => &[State::Sent, State::Done],
        (Kind::Refund, 1) => &[State::Done, State::Failed],
        (_, 0) => &[State::Open],
        (_, 1) => &[State::Upheld, State::Rejected],
        _ => &[],
    };
    if which == 0 || !state.is_some_and(|state| allowed.contains(&state)) {
        let expected = allowed.iter().map(|state| state.name()).collect::<Vec<_>>().join(" or ");
        return Err(finding(place(), "its step", expected, format!("{:?}", entry.status)));
    }
    if step == 1 {
        let Some(begun) = before(entry.kind, number(which, false))? else {
            return Err(finding(place(), "its beginning", "an earlier entry of its payment", "none"));
        };
        let begins = if entry.kind == Kind::Refund { State::Sent } else { State::Open };
        same(place(), "what it was", begins.code(), begun.status.unwrap_or_default())?;
        return same(place(), "its amount", begun.amount, entry.amount);
    }
    if which > 1 && before(entry.kind, number(which - 1, false))?.is_none() {
        return Err(finding(place(), "the one before it", "an earlier entry of its payment", "none"));
    }
    if entry.kind == Kind::Dispute {
        return same(place(), "its amount", capture.amount, entry.amount);
    }
    let mut left = capture.amount;
    for other in 1..which {
        let Some(begun) = before(Kind::Refund, number(other, false))? else { continue };
        let ended = before(Kind::Refund, number(other, true))?;
        if ended.and_then(|ended| ended.status) != Some(State::Failed.code()) {
            left = left.saturating_sub(begun.amount);
        }
    }
    if entry.amount < 1 || entry.amount > left {
        return Err(finding(place(), "its amount", format!("1 to {left}, what is left"), entry.amount));
    }
    Ok(())
}

/// The posting of this kind and number for the same payment, if it stands before.
fn earlier(known: &Known<'_>, entry: &Entry<'_>, kind: Kind, number: u16) -> Result<Option<Referred>, Stop> {
    let found = known.find(&PostingKey::new(kind, &entry.key.payment(), number))?;
    Ok(found.filter(|found| stands_before(found.n, entry.n)))
}
