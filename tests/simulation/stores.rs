//! What a simulation is driven over: replicas on one set of books. Another store joins by one more of [`Stores`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tollgate::{
    ledger::{
        entry::Kind,
        store::{Delivery, Store, StoreFuture},
    },
    payment::key::PaymentKey,
};

/// What becomes of a replica's next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It hangs until [`Stores::answer`].
    Hold,
    /// It does not take place, and the writer hears an error.
    Fail,
    /// It takes place, and the writer hears an error.
    Unseen,
    /// It does not take place, and the disk fails until it is mended.
    Broken,
    /// One row of it is refused.
    Row,
}

/// What becomes of a commit that hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Commit,
    Fail,
    Unseen,
}

/// How the days before `until` were closed, or why not; whoever hears [`Unclear`] asks again.
pub type Closing = StoreFuture<Result<i64, Unclear>>;

/// Whether the days are closed is not known, or they may not be closed yet.
#[derive(Clone, Debug)]
pub struct Unclear;

/// Replicas, their clocks, disks and processes. All of it is stepped by one thread.
pub trait Stores {
    /// How many there may be.
    fn replicas(&self) -> usize;

    /// The store of a replica; none while it is down or frozen.
    fn store(&self, replica: usize) -> Option<Arc<dyn Store>>;

    /// The number of the writer that a process of this replica is; none while there is none.
    fn slot(&self, replica: usize) -> Option<i64> {
        (!self.is_down(replica)).then_some(replica as i64 + 1)
    }

    fn is_down(&self, replica: usize) -> bool;

    fn is_frozen(&self, replica: usize) -> bool;

    /// Whether a commit of this replica hangs.
    fn holds(&self, replica: usize) -> bool;

    /// Lets every writer do what it can. Afterwards whatever was asked of a replica has its answer, unless it is frozen or
    /// a commit of it hangs.
    fn run(&mut self);

    /// Waits a moment for an answer that is on its way.
    fn wait(&mut self);

    fn arm(&mut self, replica: usize, fate: Fate);

    /// Ends a commit that hangs.
    fn answer(&mut self, replica: usize, answer: Answer);

    /// The disk is well again.
    fn mend(&mut self);

    /// Nothing will happen to a commit any more.
    fn calm(&mut self);

    /// The process dies; with `after`, only after a commit that hangs has taken place. What it held is dropped after this.
    fn crash(&mut self, replica: usize, after: bool);

    /// A process starts where there is none.
    fn open(&mut self, replica: usize);

    /// The replica does nothing until [`Stores::thaw`].
    fn freeze(&mut self, replica: usize);

    fn thaw(&mut self, replica: usize);

    /// The database dies and comes back without what was not yet durable. False where there is none.
    fn crash_database(&mut self) -> bool;

    /// Time passes, for all. Returns the replicas whose lease has ended.
    fn advance(&mut self, ms: u64) -> Vec<usize>;

    /// For how long a claim is its gateway's at most, where there is an end to it.
    fn claims_last_ms(&self) -> Option<u64> {
        None
    }

    /// Process time of a replica, Unix ms.
    fn now_ms(&self, replica: usize) -> u64;

    /// Sets the wall clock of a replica so far from the true time.
    fn step_wall(&mut self, replica: usize, offset_ms: i64);

    /// The operator's word that the wall clock is right.
    fn accept_clock(&mut self, replica: usize);

    /// Closes the days before `until`; none where nothing can be asked.
    fn close_days(&mut self, replica: usize, until: i64) -> Option<Closing>;

    /// What is written, and what memory makes of it; credit where it was ever `asked` for.
    fn books(&mut self, asked: &BTreeSet<UseKey>) -> Books;

    /// Every chain recomputed; called when all processes are at rest.
    fn audit(&mut self) -> Result<(), String>;
}

/// Who, of what, in which credit period.
pub type UseKey = (String, String, i64);

/// The books as a step has left them.
#[derive(Clone, Debug, Default)]
pub struct Books {
    pub floor_ms: i64,
    pub writers: Vec<Writer>,
    /// In order of their numbers.
    pub entries: Vec<Posted>,
    /// Settlements without an end.
    pub open: BTreeMap<PaymentKey, Open>,
    /// As batches carry them, in order of their captures.
    pub outcomes: Vec<(i64, Delivery)>,
    pub rollups: Vec<Rollup>,
    pub closes: Vec<Closed>,
    pub statements: Vec<Stated>,
    /// Claimed and captured, as the next claim would count it.
    pub used: BTreeMap<UseKey, i64>,
    /// The rows of live claims, where they are rows.
    pub live: Option<BTreeMap<PaymentKey, i64>>,
    /// No commit is in doubt: memory and books say the same.
    pub at_rest: bool,
}

#[derive(Clone, Debug)]
pub struct Writer {
    pub slot: i64,
    pub epoch: i64,
    pub seq: i64,
    pub at_ms: i64,
    pub open_day: i64,
}

#[derive(Clone, Debug)]
pub struct Posted {
    pub n: i64,
    pub kind: Kind,
    pub key: PaymentKey,
    pub at_ms: i64,
    pub day: i64,
    pub account: String,
    pub asset: String,
    pub scheme: String,
    pub amount: i64,
    /// What it adds to what is charged: a refund that failed adds again what it took.
    pub change: i64,
    pub period: i64,
    pub ref_n: Option<i64>,
}

/// What a posting adds to what is charged; `failed` is what the end of a refund says.
pub fn change(kind: Kind, number: u16, failed: bool, amount: i64) -> i64 {
    match kind {
        Kind::Capture => amount,
        Kind::Void => -amount,
        Kind::Refund if number & 1 == 0 => -amount,
        Kind::Refund if failed => amount,
        _ => 0,
    }
}

#[derive(Clone, Debug)]
pub struct Open {
    pub account: String,
    pub asset: String,
    pub period: i64,
    pub amount: i64,
}

#[derive(Clone, Debug)]
pub struct Closed {
    pub from: i64,
    pub until: i64,
    /// How many entries each writer had.
    pub heads: BTreeMap<i64, i64>,
}

#[derive(Clone, Debug)]
pub struct Rollup {
    pub day: i64,
    pub account: String,
    pub asset: String,
    /// Captured less voided and refunded.
    pub net: i64,
}

#[derive(Clone, Debug)]
pub struct Stated {
    pub account: String,
    pub asset: String,
    pub total: i64,
}
