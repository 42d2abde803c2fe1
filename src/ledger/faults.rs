//! Where a test may make the disk fail. A gateway runs with [`NoFaults`]; no configuration reaches this.

use rusqlite::{Connection, Result};

use crate::payment::key::PaymentKey;

/// Called at the points of a batch where a machine may fail. An error stands for SQLite's own.
pub trait Faults: Send + Sync {
    /// A connection was opened, to write.
    fn opened(&self, _connection: &Connection) -> Result<()> {
        Ok(())
    }

    /// A capture is about to be inserted.
    fn insert(&self, _key: &PaymentKey) -> Result<()> {
        Ok(())
    }

    /// Everything is written, nothing is committed.
    fn before_commit(&self) -> Result<()> {
        Ok(())
    }

    /// The batch is on disk and nobody knows yet.
    fn after_commit(&self) -> Result<()> {
        Ok(())
    }
}

/// Leaves everything as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFaults;

impl Faults for NoFaults {}
