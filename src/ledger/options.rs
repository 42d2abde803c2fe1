//! How a ledger is opened.

use super::{location::Location, opening::SKEW_MAX_MS};
use crate::clock::Clock;

/// How far the clocks of a gateway and of its ledger's server may be apart. One that is ahead would raise the replay floor for
/// all: no payment would be taken any more until time has caught up.
pub const APART_MAX_MS: u64 = 60_000;

/// How a ledger is opened.
#[derive(Clone, Debug)]
pub struct LedgerOptions {
    /// Where it is; made when it is missing.
    pub place: Location,
    /// IANA zone of book days, `UTC`; fixed when the file is made.
    pub zone: String,
    /// Payments remembered above the replay floor; a full memory answers 503.
    pub keys_max: usize,
    /// Captures that may wait for the disk; more answer 503.
    pub queue_max: usize,
    /// False loses the last payments with the machine's power.
    pub sync: bool,
    /// The longest ttl of an offer that may still be presented, templates of earlier configurations included.
    pub ttl_max_ms: u64,
    /// A ledger that is made now takes no payment from before, Unix ms; 0 where there can be none.
    pub since_ms: u64,
    /// Clock skew allowed to agents, at most 300,000.
    pub skew_ms: u64,
    /// How far the clocks of this process and of a ledger's server may be apart; beyond that, priced routes are closed. `None`:
    /// they are not compared.
    pub apart_max_ms: Option<u64>,
    /// What tells the keys that seal offers from others', for gateways that share the ledger; see
    /// [`Secrets::fingerprints`](crate::payment::secrets::Secrets::fingerprints).
    pub secret_prints: String,
    /// Time.
    pub clock: Clock,
}

impl LedgerOptions {
    /// For a command that opens the ledger of a gateway that does not run.
    pub fn offline(place: Location, zone: String, clock: Clock) -> LedgerOptions {
        LedgerOptions {
            place,
            zone,
            keys_max: usize::MAX,
            queue_max: 64,
            sync: true,
            ttl_max_ms: 3_600_000,
            since_ms: 0,
            skew_ms: SKEW_MAX_MS,
            apart_max_ms: Some(APART_MAX_MS),
            secret_prints: String::new(),
            clock,
        }
    }
}
