//! After an older copy was put back: what the copy does not know may have been sold, so no payment from before now is taken,
//! and numbers that may have been given are not given again.
//!
//! The replay floor rises to now. A new writer goes on with a chain of its own: entries that came after the copy had numbers
//! that agents hold receipts for. In a file it is the next slot; on a server every slot is retired, and whoever had one has it no
//! more, so that each gateway takes a new one.

use super::{
    chain,
    file::{self, OpenError, Owner},
    location::Location,
    postgres::{lease::RETIRED_MS, schema},
    sql::{Begin, Session, SqlError, SqlResult, params},
};

/// What was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Payments made before are refused, Unix ms.
    pub floor_ms: u64,
    /// Writers that post no more.
    pub retired: u64,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoredError {
    /// A gateway runs over the file.
    #[error(
        "a gateway runs over this ledger; stop it: what it has sold since the copy was put back may have been sold before"
    )]
    Running,
    /// The ledger can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The floor would not be above what was posted.
    #[error("the clock says {now_ms} ms, the last posting is of {last_ms} ms: set the clock first")]
    Clock {
        /// The clock.
        now_ms: u64,
        /// The last posting.
        last_ms: i64,
    },
}

/// Makes a ledger that was restored safe to sell with. Twice is once, but for the time.
///
/// # Errors
/// See [`RestoredError`]; nothing has changed.
pub fn restored(location: &Location, zone: &str, now_ms: u64) -> Result<Restored, RestoredError> {
    let sql = |error: SqlError| RestoredError::Open(location.error(&error));
    let (session, _owner) = match location {
        Location::File(path) => {
            let owner = Owner::lock(path).map_err(|error| match error {
                OpenError::Locked { .. } => RestoredError::Running,
                other => other.into(),
            })?;
            (file::open_to_write(path, zone, true, 0)?.0, Some(owner))
        }
        Location::Server(server) => {
            let session = server.connect().map_err(sql)?;
            schema::open_to_write(server, &session, zone, 0)?;
            (session, None)
        }
    };
    let transaction = session.begin(Begin::Write).map_err(sql)?;
    if transaction.sqlite().is_none() {
        schema::lock(&transaction).map_err(sql)?;
    }
    let last_ms: i64 = transaction.cell("SELECT coalesce(max(at_ms), 0) FROM writers", &[]).map_err(sql)?;
    let floor_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
    if floor_ms < last_ms {
        return Err(RestoredError::Clock { now_ms, last_ms });
    }
    let retired = change(&transaction, floor_ms).map_err(sql)?;
    transaction.commit().map_err(sql)?;
    Ok(Restored { floor_ms: now_ms, retired })
}

fn change(transaction: &Session, floor_ms: i64) -> SqlResult<u64> {
    transaction.execute("UPDATE book SET replay_floor_ms = ?1 WHERE replay_floor_ms < ?1", params![floor_ms])?;
    if transaction.sqlite().is_none() {
        let retire = "UPDATE writers SET epoch = epoch + 1, lease_until = ?1 WHERE lease_until > ?1";
        return transaction.execute(retire, params![RETIRED_MS]);
    }
    let slot = file::slot(transaction)?;
    if file::head(transaction, slot)?.is_none_or(|head| head.batch_seq == 0) {
        // It has given no number.
        return Ok(0);
    }
    let ledger_id: [u8; 16] = transaction.cell("SELECT ledger_id FROM book", &[])?;
    let next = "INSERT INTO writers (slot, epoch, seq, batch_seq, head, at_ms, open_day) \
                VALUES (?1, 1, 0, 0, ?2, 0, (SELECT max(open_day) FROM writers))";
    transaction.execute(next, params![slot + 1, &chain::genesis(&ledger_id, slot + 1)])
}
