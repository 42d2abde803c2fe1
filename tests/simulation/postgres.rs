//! Several gateways over a real PostgreSQL server: each with its own store, writer and claims' thread, and a [`Wire`] between
//! them and the server that does to the next commit what it is told to.
//!
//! The database's time is the simulation's: a function of the books' schema stands before the server's own. The server writes
//! its log late, so that a crash of it really loses what was committed asynchronously. Each step waits until both threads of
//! every gateway that was touched have answered a question after everything else, or a commit hangs that they wait for. So a
//! seed is nearly a run; not quite, for a thread that idles for a second of real time sweeps, raises the floor and renews its
//! lease of itself, and what a crash of the server loses is the server's choice. All orders that this can bring about are
//! legal, but a run that fails is printed as it was, and not made shorter.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    task::Waker,
    thread,
    time::{Duration, Instant},
};

use tollgate::{
    clock::Clock,
    ledger::{
        ledger_store::{LedgerOptions, LedgerStore, OpenError},
        location::Location,
        read::LedgerReader,
        store::Store,
    },
};

use super::{
    disk::Disk,
    postgres_books::{Read, read},
    postgres_process::{Process, Question, Quiet, Unpark},
    postgres_server::Database,
    stores::{Answer, Books, Closing, Fate, Stores, Unclear, UseKey},
    wire::Wire,
};

/// Longer than any machine needs for a step.
const STUCK: Duration = Duration::from_secs(30);
const REPLICAS: usize = 3;
/// One thing leads to another no further than this.
const ROUNDS: usize = 5;
/// Time passes in steps of which a lease outlives one.
const TICK_MS: u64 = 4_000;
/// A longer time is passed at once but for its end: whoever lives has renewed its lease meanwhile.
const TICKED_MS: u64 = 8_000;

struct Replica {
    process: Option<Process>,
    clock: Clock,
    /// What has passed while it stood still; none while it does not.
    frozen: Option<u64>,
    /// Something was asked of it since it was quiet.
    touched: Cell<bool>,
    /// It waits for what a commit that hangs has locked.
    blocked: Cell<bool>,
    /// What was said to it is done, or is in a commit that hangs.
    settled: Cell<bool>,
}

pub struct PostgresStores {
    database: RefCell<Database>,
    replicas: Vec<Replica>,
    now_ms: u64,
    started: u32,
    arms: u32,
    waits: u32,
    books: Option<Read>,
}

impl PostgresStores {
    /// Over the server of this thread; see [`Database::is_there`].
    pub fn new(now_ms: u64) -> PostgresStores {
        let database = Database::empty(now_ms);
        // Clocks of machines are a little apart.
        let clock = |i: usize| Clock::manual(now_ms + [0, 900, 200][i % 3] - [0, 0, 1700][i % 3]);
        let replica = |i| Replica {
            process: None,
            clock: clock(i),
            frozen: None,
            touched: Cell::new(true),
            blocked: Cell::new(false),
            settled: Cell::new(true),
        };
        let replicas = (0..REPLICAS).map(replica).collect();
        let (database, books) = (RefCell::new(database), None);
        let mut stores = PostgresStores { database, replicas, now_ms, started: 0, arms: 0, waits: 0, books };
        (0..REPLICAS).for_each(|i| stores.start(i));
        stores
    }

    fn start(&mut self, i: usize) {
        self.started += 1;
        let name = format!("process {}", self.started);
        let (wire, disk) = (Wire::new(&self.database.borrow().socket()), Arc::new(Disk::new()));
        let options = LedgerOptions {
            place: Location::parse(&wire.url(), None).unwrap(),
            zone: "UTC".to_owned(),
            keys_max: 1_000,
            queue_max: 100,
            sync: true,
            ttl_max_ms: 300_000,
            since_ms: 0,
            skew_ms: 30_000,
            clock: self.replicas[i].clock.clone(),
            apart_max_ms: None,
            secret_prints: name.clone(),
        };
        let faults = disk.clone();
        let driver = thread::current();
        let opening = thread::spawn(move || {
            let opened = LedgerStore::open_with_faults(options, faults);
            driver.unpark();
            opened
        });
        let start = Instant::now();
        let mut given_up = false;
        while !opening.is_finished() {
            assert!(start.elapsed() < STUCK, "a gateway does not start");
            // Who would wait for a commit that hangs gives up.
            if !given_up && self.stuck() && self.database.borrow_mut().waiting(&wire.pids()) {
                wire.die();
                given_up = true;
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        match opening.join().unwrap() {
            Ok(store) => self.replicas[i].process = Some(Process { store, wire, disk, name }),
            Err(error) => {
                let excused = given_up || matches!(error, OpenError::Unreachable { .. }) && self.stuck();
                assert!(excused, "a gateway does not start: {error}");
                self.bury(&wire);
            }
        }
    }

    fn bury(&self, wire: &Wire) {
        wire.die();
        self.database.borrow_mut().end(&wire.pids());
        wire.buried();
    }

    /// Whether a commit hangs, whose rows are locked.
    fn stuck(&self) -> bool {
        self.processes().any(|(_, process)| process.wire.lock().held.is_some())
    }

    fn processes(&self) -> impl Iterator<Item = (&Replica, &Process)> {
        self.replicas.iter().filter_map(|replica| Some((replica, replica.process.as_ref()?)))
    }

    /// Lets these replicas do what they can.
    fn settle(&self, replicas: &[usize]) {
        let mut rest = replicas.to_vec();
        // What an answer has led to is waited for too; a row that is refused is tried again and again.
        for _ in 0..ROUNDS {
            if rest.is_empty() {
                break;
            }
            let mut questions: Vec<(usize, Question<'_>)> = Vec::new();
            for i in &rest {
                let replica = &self.replicas[*i];
                if let (Some(process), None) = (&replica.process, replica.frozen) {
                    process.wire.lock().busy = false;
                    questions.push((*i, Question::new(process)));
                }
            }
            self.ask(questions);
            let is_busy = |i: &usize| {
                let (replica, process) = (&self.replicas[*i], &self.replicas[*i].process);
                replica.settled.get() && process.as_ref().is_some_and(|process| process.wire.lock().busy)
            };
            rest.retain(is_busy);
        }
        for i in replicas {
            if let (replica, Some(process)) = (&self.replicas[*i], &self.replicas[*i].process) {
                process.disk.lock().refused = None;
                // What hangs, is out of reach or was refused is looked at again.
                let again = !replica.settled.get() || process.wire.lock().held.is_some() || rest.contains(i);
                replica.touched.set(again);
            }
        }
    }

    fn ask(&self, mut questions: Vec<(usize, Question<'_>)>) {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let start = Instant::now();
        let mut turns = 0;
        while !questions.is_empty() {
            questions.retain_mut(|(i, question)| {
                let Some(quiet) = question.poll(&waker) else { return true };
                self.replicas[*i].blocked.set(false);
                self.replicas[*i].settled.set(quiet == Quiet::Yes);
                false
            });
            if questions.is_empty() {
                return;
            }
            turns += 1;
            if turns % 8 == 0 && self.stuck() {
                questions.retain(|(i, question)| {
                    let blocked = self.database.borrow_mut().waiting(&question.process.wire.pids());
                    if blocked {
                        self.replicas[*i].blocked.set(true);
                        self.replicas[*i].settled.set(false);
                    }
                    !blocked
                });
            }
            let late = start.elapsed() > STUCK;
            assert!(
                !late,
                "there is no answer: {:?}",
                questions.iter().map(|(i, q)| (i, q.process.store.health())).collect::<Vec<_>>()
            );
            thread::park_timeout(Duration::from_micros(500));
        }
    }

    fn live(&self) -> Vec<usize> {
        (0..REPLICAS).filter(|i| self.replicas[*i].process.is_some() && self.replicas[*i].frozen.is_none()).collect()
    }

    fn touch_all(&mut self) {
        self.replicas.iter().for_each(|replica| replica.touched.set(true));
        self.books = None;
    }

    /// Time passes for the database and whoever does not stand still; with `renewed`, all of these have renewed their leases
    /// meanwhile.
    fn tick(&mut self, ms: u64, renewed: bool) {
        self.now_ms += ms;
        let free = |i: &usize| {
            let (replica, process) = (&self.replicas[*i], self.replicas[*i].process.as_ref());
            replica.settled.get() && process.is_some_and(|process| process.wire.lock().held.is_none())
        };
        let names: Vec<String> = self
            .live()
            .into_iter()
            .filter(free)
            .filter_map(|i| Some(self.replicas[i].process.as_ref()?.name.clone()))
            .collect();
        self.database.borrow_mut().pass(ms, if renewed { &names } else { &[] });
        for replica in &mut self.replicas {
            match &mut replica.frozen {
                Some(missed) => *missed += ms,
                None => replica.clock.advance(ms),
            }
            if let (Some(process), None) = (&replica.process, replica.frozen) {
                process.store.check_clock();
            }
        }
        // The second answer comes after the lease was renewed.
        (0..2).for_each(|_| self.settle(&self.live()));
    }

    /// Replicas whose lease is over.
    fn over(&mut self) -> BTreeSet<usize> {
        let leases = self.database.borrow_mut().leases();
        let lives = |name: &String| leases.get(name).is_some_and(|until| *until > self.now_ms as i64);
        let over = |i: &usize| self.replicas[*i].process.as_ref().is_some_and(|process| !lives(&process.name));
        (0..REPLICAS).filter(over).collect()
    }
}

impl Stores for PostgresStores {
    fn replicas(&self) -> usize {
        REPLICAS
    }

    fn store(&self, replica: usize) -> Option<Arc<dyn Store>> {
        let replica = &self.replicas[replica];
        let process = replica.process.as_ref().filter(|_| replica.frozen.is_none())?;
        replica.touched.set(true);
        Some(process.store.clone() as Arc<dyn Store>)
    }

    fn slot(&self, replica: usize) -> Option<i64> {
        let process = self.replicas[replica].process.as_ref()?;
        self.books.as_ref()?.slots.get(&process.name).copied()
    }

    fn is_down(&self, replica: usize) -> bool {
        self.replicas[replica].process.is_none()
    }

    fn is_frozen(&self, replica: usize) -> bool {
        self.replicas[replica].frozen.is_some()
    }

    fn holds(&self, replica: usize) -> bool {
        let replica = &self.replicas[replica];
        let held = |process: &Process| process.wire.lock().held.is_some();
        replica.blocked.get() || replica.process.as_ref().is_some_and(held)
    }

    fn run(&mut self) {
        self.waits = 0;
        let touched: Vec<usize> = self.live().into_iter().filter(|i| self.replicas[*i].touched.get()).collect();
        if !touched.is_empty() {
            self.books = None;
            self.settle(&touched);
        }
    }

    fn wait(&mut self) {
        self.waits += 1;
        if self.waits.is_multiple_of(20) && self.stuck() {
            for (replica, process) in self.processes() {
                if replica.frozen.is_none() && self.database.borrow_mut().waiting(&process.wire.pids()) {
                    replica.blocked.set(true);
                    replica.settled.set(false);
                }
            }
        }
        if self.waits.is_multiple_of(100) {
            self.processes().for_each(|(_, process)| process.store.hurry());
        }
        thread::park_timeout(Duration::from_micros(100));
    }

    /// Each third failure meets the next commit in which something is claimed, not one of the writer.
    fn arm(&mut self, replica: usize, fate: Fate) {
        let Some(process) = &self.replicas[replica].process else { return };
        let (mut wire, mut disk) = (process.wire.lock(), process.disk.lock());
        (wire.armed, wire.armed_claim, disk.armed) = (None, None, None);
        self.arms += 1;
        match fate {
            Fate::Row => disk.armed = Some(fate),
            Fate::Fail | Fate::Unseen if self.arms.is_multiple_of(3) => wire.armed_claim = Some(fate),
            _ => wire.armed = Some(fate),
        }
    }

    fn answer(&mut self, replica: usize, answer: Answer) {
        // A process that stands still hears of no failure; that a commit took place is the database's doing.
        if self.is_frozen(replica) && answer != Answer::Commit {
            return;
        }
        let Some(process) = &self.replicas[replica].process else { return };
        if process.wire.lock().held.is_some() {
            process.wire.answer(answer);
            self.touch_all();
        }
    }

    fn mend(&mut self) {
        for (replica, process) in self.processes() {
            if process.wire.lock().cut {
                process.wire.cut(false);
                process.store.hurry();
                replica.touched.set(true);
            }
        }
    }

    fn calm(&mut self) {
        for (_, process) in self.processes() {
            let (mut wire, mut disk) = (process.wire.lock(), process.disk.lock());
            (wire.armed, wire.armed_claim, disk.armed) = (None, None, None);
        }
    }

    fn crash(&mut self, replica: usize, after: bool) {
        if let (true, Some(process)) = (after, &self.replicas[replica].process) {
            let mut wire = process.wire.lock();
            if wire.held.is_some() {
                // It hears nothing any more.
                wire.frozen = true;
                drop(wire);
                process.wire.answer(Answer::Commit);
            }
        }
        let Some(process) = self.replicas[replica].process.take() else { return };
        self.bury(&process.wire);
        let it = &mut self.replicas[replica];
        it.frozen = None;
        (it.blocked, it.settled) = (Cell::new(false), Cell::new(true));
        self.touch_all();
    }

    fn open(&mut self, replica: usize) {
        if self.replicas[replica].process.is_none() {
            self.replicas[replica].clock = Clock::manual(self.replicas[replica].clock.wall_ms());
            self.start(replica);
            self.touch_all();
        }
    }

    fn freeze(&mut self, replica: usize) {
        let it = &mut self.replicas[replica];
        if let (Some(process), None) = (&it.process, it.frozen) {
            process.wire.freeze();
            it.frozen = Some(0);
        }
    }

    fn thaw(&mut self, replica: usize) {
        let it = &mut self.replicas[replica];
        if let (Some(process), Some(missed)) = (&it.process, it.frozen.take()) {
            it.clock.advance(missed);
            process.store.check_clock();
            process.wire.thaw();
            it.touched.set(true);
        }
    }

    fn crash_database(&mut self) -> bool {
        self.database.borrow_mut().crash();
        self.touch_all();
        true
    }

    fn advance(&mut self, ms: u64) -> Vec<usize> {
        let mut left = ms;
        let mut over = BTreeSet::new();
        if left > TICKED_MS + TICK_MS {
            self.tick(left - TICKED_MS, true);
            over.append(&mut self.over());
            left = TICKED_MS;
        }
        while left > 0 {
            let step = left.min(TICK_MS);
            self.tick(step, false);
            over.append(&mut self.over());
            left -= step;
        }
        self.touch_all();
        over.into_iter().collect()
    }

    fn claims_last_ms(&self) -> Option<u64> {
        Some(3_600_000)
    }

    fn now_ms(&self, replica: usize) -> u64 {
        self.replicas[replica].clock.now_ms()
    }

    fn step_wall(&mut self, replica: usize, offset_ms: i64) {
        let it = &self.replicas[replica];
        it.clock.step_wall(self.now_ms as i64 + offset_ms - it.clock.now_ms() as i64);
        if let Some(process) = &it.process {
            process.store.check_clock();
        }
    }

    fn accept_clock(&mut self, replica: usize) {
        let it = &self.replicas[replica];
        it.touched.set(true);
        match &it.process {
            _ if it.frozen.is_some() => {}
            Some(process) => process.store.accept_clock(),
            None => it.clock.accept_wall(),
        }
    }

    fn close_days(&mut self, replica: usize, until: i64) -> Option<Closing> {
        let it = &self.replicas[replica];
        let process = it.process.as_ref().filter(|_| it.frozen.is_none())?;
        it.touched.set(true);
        let closing = process.store.close_days(until, None);
        Some(Box::pin(async move { closing.await.map(|close| close.until).map_err(|_| Unclear) }))
    }

    fn books(&mut self, _: &BTreeSet<UseKey>) -> Books {
        if self.books.is_none() {
            self.books = Some(read(&mut self.database.borrow_mut()));
        }
        let settled = self.replicas.iter().all(|replica| replica.settled.get());
        let books = self.books.as_ref().map(|read| read.books.clone()).unwrap_or_default();
        Books { at_rest: settled, ..books }
    }

    fn audit(&mut self) -> Result<(), String> {
        for i in 0..REPLICAS {
            if let Some(process) = self.replicas[i].process.take() {
                process.store.close().map_err(|error| error.to_string())?;
                self.bury(&process.wire);
            }
        }
        let place = Location::parse(&self.database.borrow().url(), None).unwrap();
        let report = LedgerReader::open(place).unwrap().audit(|_, _| ()).unwrap();
        report.finding.map_or(Ok(()), |finding| Err(finding.to_string()))
    }
}

impl Drop for PostgresStores {
    fn drop(&mut self) {
        for i in 0..REPLICAS {
            self.crash(i, false);
        }
    }
}

/// Leases by the names of their processes, or slots.
pub type ByName = BTreeMap<String, i64>;
