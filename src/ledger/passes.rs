//! Passes: whoever has paid for something repeats it without charge, for a time or so many times.
//!
//! ```text
//! paid ──► good ──► over       by its time, by its last request, or by a void of the capture that bought it
//! ```
//!
//! | point | durable | a crash or a failing disk leaves |
//! |---|---|---|
//! | capture queued | nothing | neither a charge nor a pass |
//! | capture and pass posted, in this order, in one transaction | both or nothing | both or nothing |
//! | repeated: claimed | as any claim | the request is free again |
//! | repeated: captured, one of the asset `requests` in the period that is the number of the entry that bought the pass | the row | the request counts, and is had once more as any capture without outcome |
//!
//! Who buys at once what he has no pass for yet has several, and may use them all. A purchase with a pass is not reversed by the
//! gateway itself, whatever became of its answer: its agent has that again by the pass. The operator's void ends the pass.
//!
//! A repeat is a payment of one request: its signature buys once, of two for the last one only one is served, on whatever gateway,
//! and a void gives it back. So nothing of a pass is kept but its posting and the row of `account_use` that counts it.
//!
//! The posting's key is `kind 11 ‖ kind 7 ‖ scope 12 ‖ which 4`: all passes of an agent for one thing lie together in the index of
//! keys, the latest last; `which` is the second in which it was posted, or the number behind the last. Its amount is how many requests it has, 0 for any number, its period for how many seconds it is good, and
//! `ref_n` the capture, which is the entry before it.

use std::{collections::HashMap, sync::Arc};

use super::{
    batch::{BatchError, Stamp, sort},
    entry::{Entry, Kind, PostingKey},
    poster::Poster,
    read::{LedgerReader, ReadError},
    sql::{Session, SqlResult, params},
    store::{ClaimRequest, Posting, Unavailable},
};
use crate::{
    payment::{
        key::PaymentKey,
        pass::{Grant, Scope},
    },
    wire::amount::{Asset, Units},
};

/// Numbers of entries begin here; no credit period is so large.
pub(super) const FIRST_N: i64 = 1 << 48;

/// Whether a period is the number of an entry that bought a pass.
pub fn is_of_pass(period: i64) -> bool {
    period >= FIRST_N
}

/// The key of a pass's posting.
fn key(scope: Scope, which: u32) -> PostingKey {
    PostingKey::new(Kind::Pass, &PaymentKey::from_pass(scope.as_bytes(), which), 0)
}

/// A pass that is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The entry that bought it, and the period in which its requests count.
    pub n: i64,
    /// The account that bought it, under which they are booked, wherever its agent is by now.
    pub account: Arc<str>,
    /// When its time is over, Unix ms.
    pub ends_ms: u64,
    /// How many requests it has; any number where there is none.
    pub requests: Option<Units>,
    /// How many of them are in the books.
    pub used: i64,
}

/// Whether somebody has a pass.
#[derive(Clone, Debug)]
pub struct Held {
    /// Whose, for what: for the resource, or for the route.
    pub scopes: Vec<Scope>,
    /// At this time, Unix ms.
    pub at_ms: u64,
}

/// Most passes of one scope that are looked at, the latest, and most that are found: who buys at once may have some.
const LOOKED_AT: i64 = 64;
const FOUND_MAX: usize = 8;

impl LedgerReader {
    /// The passes that are good, of each scope the latest first.
    ///
    /// # Errors
    /// [`ReadError::Sql`].
    pub fn held(&self, asked: &Held) -> Result<Vec<Pass>, ReadError> {
        Ok(held(&self.connection, asked)?)
    }
}

fn held(session: &Session, asked: &Held) -> SqlResult<Vec<Pass>> {
    let mut good = Vec::new();
    for scope in &asked.scopes {
        good.extend(of_scope(session, *scope, asked.at_ms)?);
    }
    Ok(good)
}

/// Those whose time is not over, whose requests are not used up, and whose purchase was not voided.
fn of_scope(session: &Session, scope: Scope, now_ms: u64) -> SqlResult<Vec<Pass>> {
    let (first, last) = (key(scope, 0), key(scope, u32::MAX));
    let latest = "SELECT p.at_ms, p.amount, p.period, p.ref_n, c.key, u.used, p.account FROM entries p \
                  JOIN entries c ON c.n = p.ref_n LEFT JOIN account_use u \
                  ON u.account = p.account AND u.asset = p.asset AND u.period = p.ref_n \
                  WHERE p.key >= ?1 AND p.key <= ?2 ORDER BY p.key DESC LIMIT ?3";
    let latest = session.all(latest, params![first.as_bytes(), last.as_bytes(), LOOKED_AT], |row| {
        let (at_ms, seconds): (i64, i64) = (row.get(0)?, row.get(2)?);
        let ends_ms = at_ms.unsigned_abs().saturating_add(seconds.unsigned_abs().saturating_mul(1000));
        let requests = Units::new(row.get(1)?).filter(|count| *count > Units::ZERO);
        let used = row.get::<Option<i64>>(5)?.unwrap_or_default();
        Ok((
            PostingKey::from_bytes(row.get(4)?),
            Pass { n: row.get(3)?, account: row.get(6)?, ends_ms, requests, used },
        ))
    })?;
    let mut good = Vec::new();
    for (capture, pass) in latest {
        let is_left = pass.requests.is_none_or(|requests| pass.used < requests.get()) && now_ms < pass.ends_ms;
        let Some(capture) = capture.filter(|_| is_left) else { continue };
        let void = PostingKey::new(Kind::Void, &capture.payment(), 0);
        if session.first("SELECT 1 FROM entries WHERE key = ?1", params![void.as_bytes()], |_| Ok(()))?.is_none() {
            good.push(pass);
        }
        if good.len() >= FOUND_MAX {
            break;
        }
    }
    Ok(good)
}

/// Whether a capture has bought a pass: its agent has it again by that, whatever became of its answer.
pub(super) fn is_with_pass(session: &Session, capture_n: i64) -> SqlResult<bool> {
    let after = "SELECT 1 FROM entries WHERE n = ?1 AND kind = 11 AND ref_n = ?2";
    Ok(session.first(after, params![capture_n + 1, capture_n], |_| Ok(()))?.is_some())
}

/// The entries that bought passes that are good at a time, Unix ms: their rows must stay.
pub(super) fn good(session: &Session, now_ms: i64) -> SqlResult<Vec<i64>> {
    let (first, end) = ([Kind::Pass as u8], [Kind::Pass as u8 + 1]);
    let all = "SELECT e.ref_n, e.at_ms, e.amount, e.period, u.used FROM entries e LEFT JOIN account_use u \
               ON u.account = e.account AND u.asset = e.asset AND u.period = e.ref_n WHERE e.key >= ?1 AND e.key < ?2";
    let all = session.all(all, params![&first[..], &end[..]], |row| {
        let (requests, used): (i64, Option<i64>) = (row.get(2)?, row.get(4)?);
        let is_left = requests == 0 || used.unwrap_or_default() < requests;
        let ends_ms = row.get::<i64>(1)?.saturating_add(row.get::<i64>(3)?.saturating_mul(1000));
        Ok(row.get::<Option<i64>>(0)?.filter(|_| is_left && ends_ms > now_ms))
    })?;
    Ok(all.into_iter().flatten().collect())
}

/// The numbers that passes of a batch have got, by their scopes.
#[derive(Default)]
pub(super) struct Granted(HashMap<Scope, u32>);

impl Granted {
    /// Posts the pass that a capture has bought, right after it.
    pub(super) fn post<'e>(
        &mut self,
        post: &mut Poster<'_, 'e>,
        (request, posting): (&'e ClaimRequest, &'e Posting),
        capture_n: i64,
        stamp: Stamp,
    ) -> Result<(), BatchError> {
        let Some(Grant { scope, good }) = posting.grant else { return Ok(()) };
        let behind = match self.0.get(&scope) {
            Some(last) => last.saturating_add(1),
            None => next(post.connection(), scope).map_err(sort)?,
        };
        // Behind those, too, that an archive may have taken.
        let which = behind.max(u32::try_from(stamp.at_ms / 1000).unwrap_or(u32::MAX));
        self.0.insert(scope, which);
        let entry = Entry {
            n: post.next_n(),
            key: key(scope, which),
            kind: Kind::Pass,
            at_ms: stamp.at_ms,
            wall_ms: stamp.wall_ms,
            book_day: stamp.book_day,
            account: &request.account,
            agent: &posting.agent,
            agent_key: posting.agent_key.as_deref(),
            route: &posting.route,
            scheme: posting.scheme,
            asset: Asset::REQUESTS,
            amount: good.requests().map_or(0, Units::get),
            list_amount: None,
            period: i64::try_from(good.seconds()).unwrap_or(i64::MAX),
            table_hash: None,
            status: None,
            ref_n: Some(capture_n),
            method: None,
            target: None,
            target_salt: None,
            target_digest: None,
            evidence: None,
            evidence_digest: None,
        };
        match post.insert(&entry)? {
            Some(_) => Ok(()),
            // Another gateway sold the agent the same at this moment.
            None => Err(BatchError::Conflict("another gateway posted a pass for the same".to_owned())),
        }
    }
}

/// The number behind the latest of a scope.
fn next(session: &Session, scope: Scope) -> SqlResult<u32> {
    let (first, last) = (key(scope, 0), key(scope, u32::MAX));
    let latest = "SELECT key FROM entries WHERE key >= ?1 AND key <= ?2 ORDER BY key DESC LIMIT 1";
    let latest = session
        .first(latest, params![first.as_bytes(), last.as_bytes()], |row| Ok(PostingKey::from_bytes(row.get(0)?)))?;
    let which = latest.flatten().map(|key| key.payment().which());
    Ok(which.map_or(0, |which| which.saturating_add(1)))
}

/// What a lookup resolves to.
pub type HeldResult = Result<Vec<Pass>, Unavailable>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_scope_lie_together_in_their_order_and_no_other_between_them() {
        let scope = |what| Scope::new("https://a.example", &[what]);
        let (a, b) = (scope("GET /a"), scope("GET /b"));
        assert!(key(a, 0) < key(a, 1) && key(a, 255) < key(a, 256) && key(a, 256) < key(a, u32::MAX));
        for which in [0, 7, u32::MAX] {
            let other = key(b, which);
            assert!(other < key(a, 0) || other > key(a, u32::MAX));
            assert_eq!(other.payment().which(), which);
        }
    }
}
