//! What a batch may still post: only for claims that are where this gateway left them.

use std::collections::{BTreeSet, HashMap};

use super::{claims::purchase_digest, lease::Lease};
use crate::{
    ledger::{
        queue::{Act, Job, Redelivery},
        settling::Intent,
        sql::{Session, SqlResult, Value, params},
        store::ClaimRequest,
    },
    payment::key::PaymentKey,
};

/// The rows of `claims` that a batch is about, locked in the order of their keys until it ends.
pub(in crate::ledger) struct Fence {
    rows: HashMap<PaymentKey, ClaimRow>,
}

struct ClaimRow {
    state: String,
    ours: bool,
    amount: i64,
    /// What becomes of it.
    next: Option<Next>,
}

/// How a row goes on.
struct Next {
    state: &'static str,
    n: i64,
}

/// Whether something may be posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ledger) enum Pass {
    Yes,
    /// Money moved, but somebody else has the payment in hand: posted, and owed to whoever comes for it.
    Owed,
    /// The payment has had its end.
    Lost,
    /// It is not this gateway's any more.
    No,
}

impl Fence {
    /// Locks the rows.
    pub(in crate::ledger) fn take(
        transaction: &Session,
        lease: Lease,
        keys: impl Iterator<Item = PaymentKey>,
    ) -> SqlResult<Fence> {
        let keys: BTreeSet<[u8; 17]> = keys.map(|key| *key.as_bytes()).collect();
        let keys: Vec<Option<&[u8]>> = keys.iter().map(|key| Some(&key[..])).collect();
        let mut rows = HashMap::new();
        if keys.is_empty() {
            return Ok(Fence { rows });
        }
        let select = "SELECT key, state, slot, epoch, amount FROM claims WHERE key = ANY(?1) ORDER BY key FOR UPDATE";
        let found = transaction.all(select, &[Value::Blobs(&keys)], |row| {
            let owner = Lease { slot: row.get(2)?, epoch: row.get(3)? };
            let claim = ClaimRow { state: row.get(1)?, ours: owner == lease, amount: row.get(4)?, next: None };
            Ok((PaymentKey::from_bytes(row.get(0)?), claim))
        })?;
        rows.extend(found.into_iter().filter_map(|(key, row)| Some((key?, row))));
        Ok(Fence { rows })
    }

    /// Whether the job may be posted.
    pub(in crate::ledger) fn passes(&self, job: &Job) -> Pass {
        let Some(row) = self.rows.get(&job.claim.request.key) else { return Pass::No };
        match (&job.act, row.state.as_str()) {
            (Act::Capture | Act::Intend(_), "r") if row.ours => Pass::Yes,
            (Act::Settle { .. } | Act::Fail(_), "s" | "u") if row.ours => Pass::Yes,
            (Act::Settle { .. }, "s" | "u") => Pass::Owed,
            (_, "c" | "o" | "v" | "b") => Pass::Lost,
            _ => Pass::No,
        }
    }

    /// Whether what is owed is being served by this gateway.
    pub(in crate::ledger) fn serves(&self, redelivery: &Redelivery) -> bool {
        self.rows.get(&redelivery.key).is_some_and(|row| row.ours && row.state == "v")
    }

    /// What the claim took of the account's credit.
    pub(in crate::ledger) fn claimed(&self, key: &PaymentKey) -> i64 {
        self.rows.get(key).map_or(0, |row| row.amount)
    }

    /// The row's next state; `n` is the capture, where there is one.
    pub(in crate::ledger) fn becomes(&mut self, key: &PaymentKey, state: &'static str, n: i64) {
        if let Some(row) = self.rows.get_mut(key) {
            row.next = Some(Next { state, n });
        }
    }

    /// Writes the intent of a settlement into its row.
    pub(in crate::ledger) fn intend(
        &mut self,
        transaction: &Session,
        request: &ClaimRequest,
        intent: &Intent,
    ) -> SqlResult<()> {
        let key = &request.key;
        let purchase = request.purchase.as_ref().map(purchase_digest);
        let amount = intent.posting.amount.get();
        let intend = "UPDATE claims SET amount = ?2, hard_until_ms = ?3, facilitator = ?4, payload = ?5, \
                      purchase = ?6 WHERE key = ?1";
        let hard_until_ms = i64::try_from(intent.hard_until_ms).unwrap_or(i64::MAX);
        let values =
            params![key.as_bytes(), amount, hard_until_ms, &*intent.facilitator, &intent.payload, purchase.as_ref()];
        transaction.execute(intend, values)?;
        self.becomes(key, "s", 0);
        Ok(())
    }

    /// Writes what has become of the rows.
    pub(in crate::ledger) fn finish(self, transaction: &Session) -> SqlResult<()> {
        let changed: Vec<(&PaymentKey, &Next)> =
            self.rows.iter().filter_map(|(key, row)| Some((key, row.next.as_ref()?))).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let keys: Vec<Option<&[u8]>> = changed.iter().map(|(key, _)| Some(&key.as_bytes()[..])).collect();
        let states: Vec<Option<&str>> = changed.iter().map(|(_, next)| Some(next.state)).collect();
        let numbers: Vec<Option<i64>> = changed.iter().map(|(_, next)| Some(next.n)).collect();
        let update = "UPDATE claims c SET state = u.state, n = greatest(c.n, u.n), \
                      doubtful = CASE WHEN u.state = 's' THEN c.doubtful ELSE 0 END \
                      FROM unnest(?1::bytea[], ?2::text[], ?3::bigint[]) AS u(key, state, n) WHERE c.key = u.key";
        transaction.execute(update, &[Value::Blobs(&keys), Value::Texts(&states), Value::Ints(&numbers)])?;
        Ok(())
    }
}
