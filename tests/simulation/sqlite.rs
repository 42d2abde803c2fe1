//! The ledger of one gateway: real files, the real writer, a disk that fails at any commit, a process that dies at one.
//!
//! The writer is a thread. So that a seed is a run, each step waits until the writer has answered everything, or hangs in a
//! commit where the disk was told to hang. A process that dies leaves its file as it is at that moment: a copy is opened,
//! and the old one may do with its own what it likes.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use tollgate::{
    clock::Clock,
    ledger::{
        ledger_store::{LedgerOptions, LedgerStore},
        location::Location,
        read::LedgerReader,
        store::{ClaimRequest, Health, Store},
    },
    payment::key::PaymentKey,
    wire::amount::{Asset, Units},
};

use super::{
    disk::Disk,
    sqlite_books::read,
    stores::{Answer, Books, Closing, Fate, Stores, Unclear, UseKey},
};

/// Longer than any machine needs for a step.
const STUCK: Duration = Duration::from_secs(20);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

struct Process {
    store: Arc<LedgerStore>,
    disk: Arc<Disk>,
    reader: Connection,
}

/// One replica; its books move to another file whenever its process dies.
pub struct SqliteStores {
    dir: TempDir,
    files: u32,
    clock: Clock,
    true_ms: u64,
    process: Option<Process>,
}

impl SqliteStores {
    pub fn new(now_ms: u64) -> SqliteStores {
        let mut stores = SqliteStores {
            dir: tempfile::tempdir().unwrap(),
            files: 0,
            clock: Clock::manual(now_ms),
            true_ms: now_ms,
            process: None,
        };
        stores.start();
        stores
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(format!("{}.sqlite", self.files))
    }

    fn start(&mut self) {
        let options = LedgerOptions {
            place: Location::File(self.path()),
            zone: "UTC".to_owned(),
            keys_max: 1_000,
            queue_max: 100,
            // What a crash takes is decided here, not by the machine.
            sync: false,
            ttl_max_ms: 300_000,
            since_ms: 0,
            skew_ms: 30_000,
            clock: self.clock.clone(),
            apart_max_ms: None,
            secret_prints: String::new(),
        };
        let disk = Arc::new(Disk::new());
        let store = LedgerStore::open_with_faults(options, disk.clone()).unwrap();
        let reader = Connection::open_with_flags(self.path(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        self.process = Some(Process { store, disk, reader });
    }

    /// A question that is answered after everything before it; false when a commit hangs instead, or the file is refused.
    fn barrier(process: &Process) -> Option<bool> {
        let mut question = process.store.find(PaymentKey::from_signature(&[b"nobody's"]));
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let start = Instant::now();
        loop {
            if let Poll::Ready(answer) = question.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Some(answer.is_ok());
            }
            if process.disk.lock().hangs {
                return None;
            }
            assert!(start.elapsed() < STUCK, "the writer does not answer: {:?}", process.store.health());
            thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn used(process: &Process, key: &UseKey) -> i64 {
        let request = ClaimRequest {
            within: None,
            key: PaymentKey::from_signature(&[]),
            paid_at_ms: 0,
            account: key.0.as_str().into(),
            amount: Units::ZERO,
            asset: Asset::parse(&key.1).unwrap(),
            limit: Units::ZERO,
            period: key.2,
            purchase: None,
            payer: None,
        };
        process.store.used(&request).get()
    }
}

impl Stores for SqliteStores {
    fn replicas(&self) -> usize {
        1
    }

    fn store(&self, _: usize) -> Option<Arc<dyn Store>> {
        self.process.as_ref().map(|process| process.store.clone() as Arc<dyn Store>)
    }

    fn is_down(&self, _: usize) -> bool {
        self.process.is_none()
    }

    fn is_frozen(&self, _: usize) -> bool {
        false
    }

    fn holds(&self, _: usize) -> bool {
        self.process.as_ref().is_some_and(|process| process.disk.lock().hangs)
    }

    fn run(&mut self) {
        let Some(process) = &self.process else { return };
        if process.disk.lock().hangs {
            return;
        }
        let start = Instant::now();
        while SqliteStores::barrier(process) == Some(false) && !process.disk.lock().broken {
            if process.disk.lock().hangs {
                return;
            }
            assert!(start.elapsed() < STUCK, "the file stays closed: {:?}", process.store.health());
            // The writer tries its file again.
            process.store.hurry();
        }
        process.disk.lock().refused = None;
    }

    fn wait(&mut self) {
        thread::park_timeout(Duration::from_micros(200));
    }

    fn arm(&mut self, _: usize, fate: Fate) {
        if let Some(process) = &self.process {
            process.disk.lock().armed = Some(fate);
        }
    }

    fn answer(&mut self, _: usize, answer: Answer) {
        if let Some(process) = &self.process {
            process.disk.answer(answer);
        }
    }

    fn mend(&mut self) {
        if let Some(process) = &self.process {
            process.disk.lock().broken = false;
            process.store.hurry();
        }
    }

    fn calm(&mut self) {
        if let Some(process) = &self.process {
            process.disk.lock().armed = None;
        }
    }

    fn crash(&mut self, replica: usize, after: bool) {
        if after && self.holds(replica) {
            self.answer(replica, Answer::Commit);
            self.run();
        }
        let Some(process) = self.process.take() else { return };
        drop(process.reader);
        let from = self.path();
        self.files += 1;
        let to = self.path();
        for end in ["", "-wal"] {
            let name = |path: &PathBuf| PathBuf::from(format!("{}{end}", path.display()));
            if fs::exists(name(&from)).unwrap() {
                fs::copy(name(&from), name(&to)).unwrap();
            }
        }
        process.disk.die();
    }

    fn open(&mut self, _: usize) {
        if self.process.is_none() {
            self.clock = Clock::manual(self.clock.wall_ms());
            self.clock.step_wall(0);
            self.start();
        }
    }

    fn freeze(&mut self, _: usize) {}

    fn thaw(&mut self, _: usize) {}

    fn crash_database(&mut self) -> bool {
        false
    }

    fn advance(&mut self, ms: u64) -> Vec<usize> {
        self.true_ms += ms;
        self.clock.advance(ms);
        if let Some(process) = &self.process {
            process.store.check_clock();
        }
        Vec::new()
    }

    fn now_ms(&self, _: usize) -> u64 {
        self.clock.now_ms()
    }

    fn step_wall(&mut self, _: usize, offset_ms: i64) {
        self.clock.step_wall(self.true_ms as i64 + offset_ms - self.clock.now_ms() as i64);
        if let Some(process) = &self.process {
            process.store.check_clock();
        }
    }

    fn accept_clock(&mut self, _: usize) {
        if let Some(process) = &self.process {
            process.store.accept_clock();
        }
    }

    fn close_days(&mut self, _: usize, until: i64) -> Option<Closing> {
        let closing = self.process.as_ref()?.store.close_days(until, None);
        Some(Box::pin(async move { closing.await.map(|close| close.until).map_err(|_| Unclear) }))
    }

    fn books(&mut self, asked: &BTreeSet<UseKey>) -> Books {
        let Some(process) = &self.process else {
            let reader = Connection::open_with_flags(self.path(), OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
            return Books { at_rest: false, ..read(&reader).unwrap() };
        };
        let mut books = read(&process.reader).unwrap();
        let used = |key: &UseKey| (key.clone(), SqliteStores::used(process, key));
        books.used = asked.iter().filter(|(_, _, period)| *period != 0).map(used).collect();
        let broken = process.disk.lock().broken;
        let closed = matches!(process.store.health(), Health::Closed(why) if why.contains("file failed"));
        books.at_rest = !broken && !closed;
        books
    }

    fn audit(&mut self) -> Result<(), String> {
        let path = self.path();
        let Some(process) = self.process.take() else { return Err("the process is down".to_owned()) };
        drop(process.reader);
        process.store.close().map_err(|error| error.to_string())?;
        let report = LedgerReader::open(&path).unwrap().audit(|_, _| ()).unwrap();
        let found = report.finding.map(|finding| finding.to_string());
        self.start();
        found.map_or(Ok(()), Err)
    }
}
