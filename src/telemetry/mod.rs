//! What the gateway says about itself: counts for machines, and a line for each request.
//!
//! A request costs a few additions to memory of its own core. Whoever reads the counts adds the cores up.

pub mod access;
pub mod metrics;
pub mod tally;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};

use self::access::AccessLog;
use self::tally::Tallies;

/// What all cores write to; lives as long as the process.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// Counts.
    pub tallies: Tallies,
    access: RwLock<Option<Arc<AccessLog>>>,
    /// Lines of the access log that had no room.
    pub lines_lost: Arc<AtomicU64>,
    /// Configurations that were taken over.
    pub reloads_taken: AtomicU64,
    /// And those that were not.
    pub reloads_refused: AtomicU64,
    /// When the process started, Unix seconds.
    pub started_s: u64,
}

impl Telemetry {
    /// Of a process that starts now.
    pub fn new(now_ms: u64) -> Arc<Telemetry> {
        Arc::new(Telemetry { started_s: now_ms / 1000, ..Telemetry::default() })
    }

    /// The access log, if there is one.
    pub fn access(&self) -> Option<Arc<AccessLog>> {
        self.access.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes to another one from now on.
    pub fn set_access(&self, log: Option<Arc<AccessLog>>) {
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = log;
    }
}
