//! The rows of `claims`: payments whose settlement has begun and has no known end.

use std::sync::Arc;

use super::{
    batch::{BatchError, Stamp, sort},
    books::int,
    entry::{self, Entry, Kind, PostingKey},
    poster::Poster,
    postgres::fence::Fence,
    queue::{Act, Job},
    settling::{Bought, Intent},
    sql::{Row, Session, SqlError, SqlResult, params},
    steps,
    store::{ClaimRequest, Posting, Purchase, Receipt, Unresolved},
    targets,
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
///
/// On a server the rows are the fence's; `owed` says that somebody else has the payment in hand.
pub(super) fn follow<'e>(
    post: &mut Poster<'_, 'e>,
    job: &'e Job,
    posted: Option<i64>,
    owed: bool,
    mut fence: Option<&mut Fence>,
    stamp: Stamp,
) -> Result<Option<i64>, BatchError> {
    let request = &job.claim.request;
    let key = &request.key;
    match &job.act {
        Act::Capture => {
            if let (Some(fence), Some(n)) = (fence, posted) {
                fence.becomes(key, "c", n);
                take_less(post, job, fence.claimed(key))?;
            }
            Ok(posted)
        }
        Act::Intend(intent) => {
            // A second try of one payment has its intent already; one that has ended has none to come.
            let ended = [Kind::Capture, Kind::Failed].map(|kind| PostingKey::new(kind, key, 0));
            for key in &ended {
                if post.find(key).map_err(sort)?.is_some() {
                    return Ok(None);
                }
            }
            match fence {
                None => open(post.connection(), post.slot(), request, intent).map_err(sort)?,
                Some(fence) => {
                    take_less(post, job, fence.claimed(key))?;
                    fence.intend(post.connection(), request, intent).map_err(sort)?;
                }
            }
            let first = PostingKey::new(Kind::Intent, key, 0);
            posted.map_or_else(|| post.find(&first).map_err(sort), |n| Ok(Some(n)))
        }
        Act::Settle { owed: withheld, .. } => {
            let owed = owed || *withheld;
            match &mut fence {
                None => close(post.connection(), key).map_err(sort)?,
                Some(fence) => {
                    fence.becomes(key, if owed { "o" } else { "c" }, posted.unwrap_or_default());
                    take_less(post, job, fence.claimed(key))?;
                }
            }
            if let (Some(n), true) = (posted, owed) {
                post.insert(&owed_entry(job, n, post.next_n(), stamp))?;
            }
            Ok(posted)
        }
        Act::Fail(_) => {
            match &mut fence {
                None => close(post.connection(), key).map_err(sort)?,
                Some(fence) => {
                    fence.becomes(key, "b", 0);
                    let (asset, period) = (request.asset.as_str(), request.period);
                    post.change_use(&request.account, asset, period, -fence.claimed(key))?;
                }
            }
            Ok(posted)
        }
    }
}

/// Gives back what was claimed over what is posted.
fn take_less<'e>(post: &mut Poster<'_, 'e>, job: &'e Job, claimed: i64) -> Result<(), BatchError> {
    let request = &job.claim.request;
    let less = job.posting.amount.get() - claimed;
    post.change_use(&request.account, request.asset.as_str(), request.period, less)
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
        period: request.period,
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

fn open(connection: &Session, slot: i64, request: &ClaimRequest, intent: &Intent) -> SqlResult<()> {
    let open = "INSERT INTO claims VALUES (?1, ?2, (SELECT epoch FROM writers WHERE slot = ?2), 's', ?3, ?4, ?5, ?6, ?7, ?8, ?9) \
         ON CONFLICT (key) DO UPDATE SET state = 's', amount = excluded.amount, hard_until_ms = excluded.hard_until_ms, \
         facilitator = excluded.facilitator, payload = excluded.payload";
    let values = params![
        request.key.as_bytes(),
        slot,
        &*request.account,
        request.period,
        request.asset.as_str(),
        // What is settled, which may be less than what was claimed; the payload says the same.
        intent.posting.amount.get(),
        int(intent.hard_until_ms),
        &*intent.facilitator,
        &intent.payload,
    ];
    connection.execute(open, values)?;
    Ok(())
}

/// Takes the row of a settlement away: it has ended, or never began.
pub(super) fn close(connection: &Session, key: &PaymentKey) -> SqlResult<()> {
    connection.execute("DELETE FROM claims WHERE key = ?1", params![key.as_bytes()])?;
    Ok(())
}

/// Notes that a settlement ended without a verdict.
pub(super) fn set_unknown(connection: &Session, key: &PaymentKey) -> SqlResult<()> {
    connection.execute("UPDATE claims SET state = 'u' WHERE key = ?1", params![key.as_bytes()])?;
    Ok(())
}

pub(super) fn find(connection: &Session, key: &PostingKey) -> SqlResult<Option<i64>> {
    connection.first("SELECT n FROM entries WHERE key = ?1", params![key.as_bytes()], |row| row.get(0))
}

/// The capture of a payment.
pub(super) fn bought(connection: &Session, key: &PaymentKey) -> SqlResult<Option<Bought>> {
    let select = "SELECT n, at_ms, method, target, evidence, amount, asset FROM entries WHERE key = ?1";
    let [capture, owed, redelivered] =
        [Kind::Capture, Kind::Owed, Kind::Redelivered].map(|kind| PostingKey::new(kind, key, 0));
    let owed = find(connection, &owed)?.is_some() && find(connection, &redelivered)?.is_none();
    let refunded = steps::is_refunded(connection, key)?;
    connection.first(select, params![capture.as_bytes()], |row| {
        let receipt = Receipt { n: row.get(0)?, at_ms: row.get::<i64>(1)?.unsigned_abs() };
        let amount = row.get(5)?;
        let asset = Asset::parse(row.get(6)?).ok_or_else(|| SqlError::shape("what was charged is of nothing known"))?;
        let target = targets::whole(row.get(3)?, row.get(4)?);
        Ok(Bought { receipt, amount, asset, method: row.get(2)?, target, evidence: row.get(4)?, owed, refunded })
    })
}

/// The settlements without a known end, each with its intent.
pub(super) fn open_settlements(connection: &Session) -> SqlResult<Vec<Unresolved>> {
    let open = "SELECT key, account, period, asset, amount, hard_until_ms, facilitator, payload FROM claims \
                WHERE state IN ('s', 'u')";
    let intent = "SELECT n, at_ms, agent, route, scheme, list_amount, table_hash, status, method, target, evidence \
                  FROM entries WHERE key = ?1";
    let mut found: Vec<(i64, Unresolved)> = Vec::new();
    let mut open = connection.prepare(open)?;
    let mut open = open.query(&[])?;
    while let Some(claim) = open.next()? {
        let Some(key) = PaymentKey::from_bytes(claim.get(0)?) else { continue };
        let posting_key = PostingKey::new(Kind::Intent, &key, 0);
        let intended = connection.first(intent, params![posting_key.as_bytes()], |row| unresolved(key, &claim, row))?;
        found.extend(intended.flatten());
    }
    found.sort_by_key(|(n, _)| *n);
    Ok(found.into_iter().map(|(_, unresolved)| unresolved).collect())
}

/// Of a row of `claims` and the entry of its intent, with that one's number; `None` where the asset is none of ours.
fn unresolved(key: PaymentKey, claim: &Row<'_>, row: &Row<'_>) -> SqlResult<Option<(i64, Unresolved)>> {
    let Some(asset) = Asset::parse(claim.get(3)?) else { return Ok(None) };
    let amount = Units::new(claim.get(4)?).unwrap_or_default();
    let scheme = entry::scheme(row.get(4)?).unwrap_or("exact");
    let agent: Arc<str> = row.get(2)?;
    let method: Arc<str> = row.get::<Option<Arc<str>>>(8)?.unwrap_or_default();
    let target: Arc<str> = targets::whole(row.get(9)?, row.get(10)?).unwrap_or_default().into();
    let request = ClaimRequest {
        within: None,
        key,
        paid_at_ms: row.get::<i64>(1)?.unsigned_abs(),
        account: claim.get(1)?,
        amount,
        asset,
        limit: Units::MAX,
        period: claim.get(2)?,
        purchase: Some(Purchase::new(agent.clone(), &method, &target)),
        payer: None,
    };
    let posting = Posting {
        grant: None,
        agent,
        agent_key: None,
        route: row.get(3)?,
        scheme,
        amount,
        list_amount: Units::new(row.get::<Option<i64>>(5)?.unwrap_or_default()).unwrap_or_default(),
        table_hash: row.get::<Option<[u8; 32]>>(6)?.unwrap_or_default(),
        status: row.get::<Option<u16>>(7)?.unwrap_or_default(),
        method,
        target,
        evidence: row.get::<Option<Vec<u8>>>(10)?.unwrap_or_default(),
        key: None,
    };
    let intent = Intent {
        posting,
        facilitator: claim.get::<Option<Arc<str>>>(6)?.unwrap_or_default(),
        payload: claim.get::<Option<Vec<u8>>>(7)?.unwrap_or_default(),
        hard_until_ms: claim.get::<i64>(5)?.unsigned_abs(),
    };
    Ok(Some((row.get(0)?, Unresolved { request, intent: Arc::new(intent) })))
}
