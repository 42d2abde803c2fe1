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
//! A repeat is a payment of one request: its signature buys once, of two for the last one only one is served, on whatever gateway,
//! and a void gives it back. So nothing of a pass is kept but its posting and the row of `account_use` that counts it.
//!
//! The posting's key is `kind 11 ‖ kind 7 ‖ scope 12 ‖ which 4`: all passes of an agent for one thing lie together in the index of
//! keys, the latest last. Its amount is how many requests it has, 0 for any number, its period for how many seconds it is good, and
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
const FIRST_N: i64 = 1 << 48;

/// Whether a period is the number of an entry that bought a pass.
pub fn is_of_pass(period: i64) -> bool {
    period >= FIRST_N
}

/// The key of a pass's posting.
fn key(scope: Scope, which: u32) -> PostingKey {
    PostingKey::new(Kind::Pass, &PaymentKey::from_pass(scope.as_bytes(), which), 0)
}

/// A pass that is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The entry that bought it, and the period in which its requests count.
    pub n: i64,
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
    /// Who.
    pub account: Arc<str>,
    /// Whose, for what.
    pub scope: Scope,
    /// At this time, Unix ms.
    pub at_ms: u64,
}

impl LedgerReader {
    /// The latest pass of a scope, unless its time is over or its purchase was voided.
    ///
    /// # Errors
    /// [`ReadError::Sql`].
    pub fn held(&self, asked: &Held) -> Result<Option<Pass>, ReadError> {
        Ok(held(&self.connection, asked)?)
    }
}

fn held(session: &Session, asked: &Held) -> SqlResult<Option<Pass>> {
    let (first, last) = (key(asked.scope, 0), key(asked.scope, u32::MAX));
    let latest =
        "SELECT at_ms, amount, period, ref_n FROM entries WHERE key >= ?1 AND key <= ?2 ORDER BY key DESC LIMIT 1";
    let found = session.first(latest, params![first.as_bytes(), last.as_bytes()], |row| {
        Ok((row.get::<i64>(0)?, row.get::<i64>(1)?, row.get::<i64>(2)?, row.get::<Option<i64>>(3)?))
    })?;
    let Some((at_ms, requests, seconds, Some(n))) = found else { return Ok(None) };
    let ends_ms = at_ms.unsigned_abs().saturating_add(seconds.unsigned_abs().saturating_mul(1000));
    if asked.at_ms >= ends_ms {
        return Ok(None);
    }
    let capture = "SELECT key FROM entries WHERE n = ?1";
    let Some(Some(key)) = session.first(capture, params![n], |row| Ok(PostingKey::from_bytes(row.get(0)?)))? else {
        return Ok(None);
    };
    let void = PostingKey::new(Kind::Void, &key.payment(), 0);
    if session.first("SELECT 1 FROM entries WHERE key = ?1", params![void.as_bytes()], |_| Ok(()))?.is_some() {
        return Ok(None);
    }
    let used = "SELECT used FROM account_use WHERE account = ?1 AND asset = ?2 AND period = ?3";
    let used = session.first(used, params![&*asked.account, Asset::Requests.as_str(), n], |row| row.get(0))?;
    let (requests, used) = (Units::new(requests).filter(|count| *count > Units::ZERO), used.unwrap_or_default());
    Ok(Some(Pass { n, ends_ms, requests, used }))
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
        let which = match self.0.get(&scope) {
            Some(last) => last.saturating_add(1),
            None => next(post.connection(), scope).map_err(sort)?,
        };
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
pub type HeldResult = Result<Option<Pass>, Unavailable>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_scope_lie_together_in_their_order_and_no_other_between_them() {
        let scope = |what| Scope::new("acme", "https://a.example", &[what]);
        let (a, b) = (scope("GET /a"), scope("GET /b"));
        assert!(key(a, 0) < key(a, 1) && key(a, 255) < key(a, 256) && key(a, 256) < key(a, u32::MAX));
        for which in [0, 7, u32::MAX] {
            let other = key(b, which);
            assert!(other < key(a, 0) || other > key(a, u32::MAX));
            assert_eq!(other.payment().which(), which);
        }
    }
}
