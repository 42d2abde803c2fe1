//! The rows of `claims`: payments whose settlement has begun and has no known end.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    batch::{BatchError, Stamp, sort},
    books::int,
    entry::{self, Entry, Kind, PostingKey},
    file::SLOT,
    poster::Poster,
    queue::{Act, Job},
    settling::{Bought, Intent},
    steps,
    store::{ClaimRequest, Posting, Purchase, Receipt, Unresolved},
};
use crate::{
    payment::key::PaymentKey,
    wire::amount::{Asset, Units},
};

impl Act {
    /// The posting that it makes.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Act::Capture | Act::Settle { .. } => Kind::Capture,
            Act::Intend(_) => Kind::Intent,
            Act::Fail(_) => Kind::Failed,
        }
    }
}

/// What else a posting writes: the row of its open settlement comes and goes, and an answer may be owed. Returns the number
/// of the posting that counts, `None` for a loser.
pub(super) fn follow<'e>(
    post: &mut Poster<'_, 'e>,
    job: &'e Job,
    posted: Option<i64>,
    stamp: Stamp,
) -> Result<Option<i64>, BatchError> {
    let request = &job.claim.request;
    match &job.act {
        Act::Capture => Ok(posted),
        Act::Intend(intent) => {
            // A second try of one payment has its intent already; one that has ended has none to come.
            let ended = [Kind::Capture, Kind::Failed].map(|kind| PostingKey::new(kind, &request.key, 0));
            for key in &ended {
                if find(post.connection(), key).map_err(sort)?.is_some() {
                    return Ok(None);
                }
            }
            open(post.connection(), request, intent).map_err(sort)?;
            let first = PostingKey::new(Kind::Intent, &request.key, 0);
            posted.map_or_else(|| find(post.connection(), &first).map_err(sort), |n| Ok(Some(n)))
        }
        Act::Settle { owed, .. } => {
            close(post.connection(), &request.key).map_err(sort)?;
            if let (Some(n), true) = (posted, owed) {
                post.insert(&owed_entry(job, n, post.next_n(), stamp))?;
            }
            Ok(posted)
        }
        Act::Fail(_) => {
            close(post.connection(), &request.key).map_err(sort)?;
            Ok(posted)
        }
    }
}

fn owed_entry(job: &Job, ref_n: i64, n: i64, stamp: Stamp) -> Entry<'_> {
    let (request, posting) = (&job.claim.request, &job.posting);
    Entry {
        n,
        key: PostingKey::new(Kind::Owed, &request.key, 0),
        kind: Kind::Owed,
        at_ms: stamp.at_ms,
        wall_ms: stamp.wall_ms,
        book_day: stamp.book_day,
        account: &request.account,
        agent: &posting.agent,
        agent_key: posting.agent_key.as_deref(),
        route: &posting.route,
        scheme: posting.scheme,
        asset: request.asset.as_str(),
        amount: posting.amount.get(),
        list_amount: None,
        period: i64::from(request.period),
        table_hash: None,
        status: None,
        ref_n: Some(ref_n),
        method: None,
        target: None,
        target_salt: None,
        target_digest: None,
        evidence: None,
        evidence_digest: None,
    }
}

fn open(connection: &Connection, request: &ClaimRequest, intent: &Intent) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO claims VALUES (?1, ?2, (SELECT epoch FROM writers WHERE slot = ?2), 's', ?3, ?4, ?5, ?6, ?7, ?8, ?9) \
         ON CONFLICT (key) DO UPDATE SET state = 's', amount = excluded.amount, hard_until_ms = excluded.hard_until_ms, \
         facilitator = excluded.facilitator, payload = excluded.payload",
    )?;
    statement.execute(params![
        request.key.as_bytes(),
        SLOT,
        &*request.account,
        request.period,
        request.asset.as_str(),
        // What is settled, which may be less than what was claimed; the payload says the same.
        intent.posting.amount.get(),
        int(intent.hard_until_ms),
        &*intent.facilitator,
        intent.payload,
    ])?;
    Ok(())
}

/// Takes the row of a settlement away: it has ended, or never began.
pub(super) fn close(connection: &Connection, key: &PaymentKey) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM claims WHERE key = ?1")?.execute([key.as_bytes()])?;
    Ok(())
}

/// Notes that a settlement ended without a verdict.
pub(super) fn set_unknown(connection: &Connection, key: &PaymentKey) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("UPDATE claims SET state = 'u' WHERE key = ?1")?;
    statement.execute([key.as_bytes()])?;
    Ok(())
}

pub(super) fn find(connection: &Connection, key: &PostingKey) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT n FROM entries WHERE key = ?1")?;
    statement.query_row([key.as_bytes()], |row| row.get(0)).optional()
}

/// The capture of a payment.
pub(super) fn bought(connection: &Connection, key: &PaymentKey) -> rusqlite::Result<Option<Bought>> {
    let mut statement =
        connection.prepare_cached("SELECT n, at_ms, method, target, evidence, amount FROM entries WHERE key = ?1")?;
    let [capture, owed, redelivered] =
        [Kind::Capture, Kind::Owed, Kind::Redelivered].map(|kind| PostingKey::new(kind, key, 0));
    let owed = find(connection, &owed)?.is_some() && find(connection, &redelivered)?.is_none();
    let refunded = steps::is_refunded(connection, key)?;
    let row = statement.query_row([capture.as_bytes()], |row| {
        let receipt = Receipt { n: row.get(0)?, at_ms: row.get::<_, i64>(1)?.unsigned_abs() };
        let amount = row.get(5)?;
        Ok(Bought { receipt, amount, method: row.get(2)?, target: row.get(3)?, evidence: row.get(4)?, owed, refunded })
    });
    row.optional()
}

/// The settlements without a known end, each with its intent.
pub(super) fn open_settlements(connection: &Connection) -> rusqlite::Result<Vec<Unresolved>> {
    let mut statement = connection.prepare(
        "SELECT c.key, c.account, c.period, c.asset, c.amount, c.hard_until_ms, c.facilitator, c.payload, e.agent, \
         e.route, e.scheme, e.list_amount, e.table_hash, e.status, e.method, e.target, e.evidence, e.at_ms \
         FROM claims c JOIN entries e ON e.key = CAST(x'04' || c.key AS BLOB) WHERE c.state IN ('s', 'u') ORDER BY e.n",
    )?;
    let rows = statement.query_map((), |row| {
        let Some(key) = PaymentKey::from_bytes(row.get_ref(0)?.as_blob().unwrap_or_default()) else { return Ok(None) };
        let Some(asset) = Asset::parse(row.get_ref(3)?.as_str().unwrap_or_default()) else { return Ok(None) };
        let amount = Units::new(row.get(4)?).unwrap_or_default();
        let scheme = entry::scheme(row.get_ref(10)?.as_str().unwrap_or_default()).unwrap_or("exact");
        let agent: Arc<str> = row.get(8)?;
        let (method, target): (Arc<str>, Option<Arc<str>>) =
            (row.get::<_, Option<Arc<str>>>(14)?.unwrap_or_default(), row.get(15)?);
        let target = target.unwrap_or_default();
        let request = ClaimRequest {
            key,
            paid_at_ms: row.get::<_, i64>(17)?.unsigned_abs(),
            account: row.get(1)?,
            amount,
            asset,
            limit: Units::MAX,
            period: row.get(2)?,
            purchase: Some(Purchase::new(agent.clone(), &method, &target)),
            payer: None,
        };
        let posting = Posting {
            agent,
            agent_key: None,
            route: row.get(9)?,
            scheme,
            amount,
            list_amount: Units::new(row.get::<_, Option<i64>>(11)?.unwrap_or_default()).unwrap_or_default(),
            table_hash: row.get::<_, Option<[u8; 32]>>(12)?.unwrap_or_default(),
            status: row.get::<_, Option<u16>>(13)?.unwrap_or_default(),
            method,
            target,
            evidence: row.get::<_, Option<Vec<u8>>>(16)?.unwrap_or_default(),
            key: None,
        };
        let facilitator: Option<Arc<str>> = row.get(6)?;
        let payload: Option<Vec<u8>> = row.get(7)?;
        let intent = Intent {
            posting,
            facilitator: facilitator.unwrap_or_default(),
            payload: payload.unwrap_or_default(),
            hard_until_ms: row.get::<_, i64>(5)?.unsigned_abs(),
        };
        Ok(Some(Unresolved { request, intent: Arc::new(intent) }))
    })?;
    rows.filter_map(Result::transpose).collect()
}
