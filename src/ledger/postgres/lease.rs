//! A gateway's slot: its number among the writers, for as long as it says that it is there.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::schema;
use crate::ledger::{
    captured::Captured,
    chain,
    entry::EntryNumber,
    file::{self, Head},
    sql::{Begin, Session, SqlError, SqlResult, Trouble, params},
};

/// The server's clock, Unix ms.
pub(in crate::ledger) const NOW_MS: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
/// How long a slot is its gateway's after it was renewed last.
pub(in crate::ledger) const LEASE_MS: i64 = 6_000;
/// How old a renewal is when the next one is due.
const RENEW_MS: u64 = 1_000;
/// The lease of a slot that nobody gets again.
pub(in crate::ledger) const RETIRED_MS: i64 = -1;
/// A slot is given to a new gateway only so long after its lease has ended.
const ABANDONED_MS: i64 = 60_000;
/// No answer takes longer than this to be given.
const TOLD_MS: i64 = 86_400_000;

/// A slot and the turn of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ledger) struct Lease {
    pub(in crate::ledger) slot: i64,
    pub(in crate::ledger) epoch: i64,
}

impl Lease {
    /// Takes a slot that nobody has had for a while, or a new one.
    pub(in crate::ledger) fn take(session: &Session, ledger_id: &[u8; 16]) -> SqlResult<Lease> {
        let transaction = session.begin(Begin::Write)?;
        // Who closes days must see every writer.
        schema::lock(&transaction)?;
        let free = format!(
            "SELECT slot FROM writers WHERE lease_until > {RETIRED_MS} \
                     AND lease_until < {NOW_MS} - {ABANDONED_MS} ORDER BY slot LIMIT 1"
        );
        let free: Option<i64> = transaction.first(&free, &[], |row| row.get(0))?;
        let lease = match free {
            Some(slot) => {
                let again = format!(
                    "UPDATE writers SET epoch = epoch + 1, lease_until = {NOW_MS} + {LEASE_MS}, secret_fps = NULL \
                     WHERE slot = ?1 RETURNING epoch"
                );
                Lease { slot, epoch: transaction.cell(&again, params![slot])? }
            }
            None => {
                let slot: i64 = transaction.cell("SELECT coalesce(max(slot), 0) + 1 FROM writers", &[])?;
                let new = format!(
                    "INSERT INTO writers (slot, epoch, lease_until, seq, batch_seq, head, at_ms, open_day) \
                     VALUES (?1, 1, {NOW_MS} + {LEASE_MS}, 0, 0, ?2, 0, \
                     (SELECT coalesce(max(open_day), 0) FROM writers))"
                );
                transaction.execute(&new, params![slot, &chain::genesis(ledger_id, slot)])?;
                Lease { slot, epoch: 1 }
            }
        };
        transaction.commit()?;
        Ok(lease)
    }

    /// Says that its gateway is still there; false when the slot is another one's.
    pub(in crate::ledger) fn renew(self, session: &Session) -> SqlResult<bool> {
        let renew = format!("UPDATE writers SET lease_until = {NOW_MS} + {LEASE_MS} WHERE slot = ?1 AND epoch = ?2");
        Ok(session.execute(&renew, params![self.slot, self.epoch])? == 1)
    }

    /// The rows of all writers, locked until the transaction ends, and no new one meanwhile.
    pub(in crate::ledger) fn lock_all(self, transaction: &Session) -> SqlResult<()> {
        schema::lock(transaction)?;
        let all = "SELECT slot FROM writers ORDER BY slot FOR UPDATE";
        transaction.all(all, &[], |_| Ok(()))?;
        let ours = "SELECT 1 FROM writers WHERE slot = ?1 AND epoch = ?2";
        match transaction.first(ours, params![self.slot, self.epoch], |_| Ok(()))? {
            Some(()) => Ok(()),
            None => Err(SqlError::new(Trouble::Unreachable, "another gateway has taken this one's slot")),
        }
    }

    /// Its row, locked until the transaction ends; none when the slot is another one's.
    pub(in crate::ledger) fn lock_head(self, transaction: &Session) -> SqlResult<Option<Head>> {
        let lock = "SELECT 1 FROM writers WHERE slot = ?1 AND epoch = ?2 FOR UPDATE";
        match transaction.first(lock, params![self.slot, self.epoch], |_| Ok(()))? {
            Some(()) => file::head(transaction, self.slot),
            None => Ok(None),
        }
    }

    /// Tells the other gateways which keys seal this one's offers.
    pub(in crate::ledger) fn publish(self, session: &Session, prints: &str) -> SqlResult<()> {
        let publish = "UPDATE writers SET secret_fps = ?3 WHERE slot = ?1 AND epoch = ?2";
        session.execute(publish, params![self.slot, self.epoch, prints]).map(drop)
    }

    /// The other gateways that live, and what they have published.
    pub(in crate::ledger) fn peers(self, session: &Session) -> SqlResult<Vec<(i64, String)>> {
        let peers = format!(
            "SELECT slot, secret_fps FROM writers WHERE lease_until > {NOW_MS} AND slot <> ?1 AND secret_fps IS NOT NULL"
        );
        session.all(&peers, params![self.slot], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// Gives the slot up at once: nothing of it is under way.
    pub(in crate::ledger) fn end(self, session: &Session) -> SqlResult<()> {
        let end = "UPDATE writers SET lease_until = 0 WHERE slot = ?1 AND epoch = ?2";
        session.execute(end, params![self.slot, self.epoch]).map(drop)
    }
}

/// What the server's clock says, Unix ms.
pub(in crate::ledger) fn server_ms(session: &Session) -> SqlResult<u64> {
    session.cell::<i64>(&format!("SELECT {NOW_MS}"), &[]).map(i64::unsigned_abs)
}

/// Whether another gateway that lives made this capture, so lately that it may still tell what became of its answer.
pub(in crate::ledger) fn may_tell(session: &Session, capture: &Captured) -> SqlResult<bool> {
    if session.sqlite().is_some() {
        return Ok(false);
    }
    let lives =
        format!("SELECT 1 FROM writers WHERE slot = ?1 AND lease_until > {NOW_MS} AND ?2 > {NOW_MS} - {TOLD_MS}");
    let slot = EntryNumber::from_n(capture.n).slot;
    Ok(session.first(&lives, params![slot, capture.at_ms], |_| Ok(()))?.is_some())
}

/// The lease of this process, as its threads share it.
#[derive(Debug, Default)]
pub(in crate::ledger) struct Held {
    lease: Mutex<Option<Lease>>,
    /// Process time at which the last renewal was asked for; 0 before the first.
    renewed_ms: AtomicU64,
}

impl Held {
    pub(in crate::ledger) fn set(&self, lease: Lease, now_ms: u64) {
        *self.lock() = Some(lease);
        self.renewed(now_ms);
    }

    pub(in crate::ledger) fn get(&self) -> Option<Lease> {
        *self.lock()
    }

    /// The server has agreed to a renewal that was asked for then.
    pub(in crate::ledger) fn renewed(&self, asked_ms: u64) {
        self.renewed_ms.store(asked_ms.max(1), Ordering::Release);
    }

    /// Whether it is time to renew it.
    pub(in crate::ledger) fn is_due(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.renewed_ms.load(Ordering::Acquire)) >= RENEW_MS
    }

    /// Whether the lease may have run out by now: its claims may be another's.
    pub(in crate::ledger) fn is_over(&self, now_ms: u64) -> bool {
        let renewed_ms = self.renewed_ms.load(Ordering::Acquire);
        // A second earlier: claims made just before are to be captured too.
        now_ms.saturating_sub(renewed_ms) > LEASE_MS.unsigned_abs() - 1000
    }

    fn lock(&self) -> MutexGuard<'_, Option<Lease>> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
