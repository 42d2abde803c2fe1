//! A capture, as later postings about it repeat it.

use std::sync::Arc;

use super::{
    batch::Stamp,
    entry::{Entry, Kind, PostingKey},
    sql::{Session, SqlResult, params},
};

/// The columns of a capture that a later posting about it repeats.
pub(super) struct Captured {
    pub(super) n: i64,
    pub(super) key: PostingKey,
    pub(super) at_ms: i64,
    pub(super) account: Arc<str>,
    agent: String,
    agent_key: Option<String>,
    route: String,
    pub(super) scheme: String,
    pub(super) asset: String,
    pub(super) amount: i64,
    pub(super) period: i64,
}

impl Captured {
    /// Whether this agent bought it on this account.
    pub(super) fn is_of(&self, account: &str, agent: &str) -> bool {
        *self.account == *account && self.agent == agent
    }

    /// A later posting about the capture.
    pub(super) fn entry(&self, kind: Kind, n: i64, stamp: Stamp) -> Entry<'_> {
        Entry {
            n,
            key: PostingKey::new(kind, &self.key.payment(), 0),
            kind,
            at_ms: stamp.at_ms,
            wall_ms: stamp.wall_ms,
            book_day: stamp.book_day,
            account: &self.account,
            agent: &self.agent,
            agent_key: self.agent_key.as_deref(),
            route: &self.route,
            scheme: &self.scheme,
            asset: &self.asset,
            amount: self.amount,
            list_amount: None,
            period: self.period,
            table_hash: None,
            status: None,
            ref_n: Some(self.n),
            method: None,
            target: None,
            target_salt: None,
            target_digest: None,
            evidence: None,
            evidence_digest: None,
        }
    }
}

/// The capture of this number.
pub(super) fn captured(connection: &Session, n: i64) -> SqlResult<Option<Captured>> {
    let select = "SELECT key, account, agent, agent_key, route, scheme, asset, amount, period, at_ms FROM entries \
                  WHERE n = ?1 AND kind = 1";
    let row = connection.first(select, params![n], |row| {
        let Some(key) = PostingKey::from_bytes(row.get(0)?) else { return Ok(None) };
        Ok(Some(Captured {
            n,
            key,
            account: row.get(1)?,
            agent: row.get(2)?,
            agent_key: row.get(3)?,
            route: row.get(4)?,
            scheme: row.get(5)?,
            asset: row.get(6)?,
            amount: row.get(7)?,
            period: row.get(8)?,
            at_ms: row.get(9)?,
        }))
    })?;
    Ok(row.flatten())
}
