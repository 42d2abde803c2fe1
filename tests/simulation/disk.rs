//! A disk that does to the next commit what it is told to.

use std::{
    sync::{Condvar, Mutex, MutexGuard},
    thread::{self, Thread},
};

use rusqlite::{Connection, ffi};
use tollgate::{ledger::faults::Faults, payment::key::PaymentKey};

use super::stores::{Answer, Fate};

/// The disk of one process, as its writer meets it.
pub struct Disk {
    state: Mutex<DiskState>,
    changed: Condvar,
    /// Who steps the simulation.
    driver: Thread,
}

#[derive(Default)]
pub struct DiskState {
    pub armed: Option<Fate>,
    /// A commit hangs, before it takes place or after.
    pub hangs: bool,
    pub answer: Option<Answer>,
    pub broken: bool,
    fails_after: bool,
    /// Its process is dead: whoever comes here is turned away.
    pub dead: bool,
    /// The payment whose row is refused.
    pub refused: Option<PaymentKey>,
}

fn failure() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), None)
}

impl Disk {
    pub fn new() -> Disk {
        Disk { state: Mutex::default(), changed: Condvar::new(), driver: thread::current() }
    }

    pub fn lock(&self) -> MutexGuard<'_, DiskState> {
        self.state.lock().unwrap()
    }

    /// Ends a commit that hangs.
    pub fn answer(&self, answer: Answer) {
        let mut state = self.lock();
        if state.hangs {
            state.answer = Some(answer);
            state.hangs = false;
            self.changed.notify_all();
        }
    }

    /// Its process is dead; whoever hangs goes.
    pub fn die(&self) {
        self.lock().dead = true;
        self.changed.notify_all();
    }

    /// Hangs until it is answered.
    fn hang(&self, mut state: MutexGuard<'_, DiskState>) -> Answer {
        state.hangs = true;
        self.driver.unpark();
        let mut state = self.changed.wait_while(state, |state| state.answer.is_none() && !state.dead).unwrap();
        state.hangs = false;
        state.answer.take().unwrap_or(Answer::Fail)
    }
}

impl Faults for Disk {
    fn opened(&self, _: &Connection) -> rusqlite::Result<()> {
        let state = self.lock();
        if state.broken || state.dead { Err(failure()) } else { Ok(()) }
    }

    fn insert(&self, key: &PaymentKey) -> rusqlite::Result<()> {
        let mut state = self.lock();
        if state.armed == Some(Fate::Row) {
            state.armed = None;
            state.refused = Some(*key);
        }
        if state.refused == Some(*key) {
            return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CONSTRAINT), None));
        }
        Ok(())
    }

    fn before_commit(&self) -> rusqlite::Result<()> {
        let mut state = self.lock();
        if state.dead || state.broken {
            return Err(failure());
        }
        let answer = match state.armed.take() {
            Some(Fate::Hold) => self.hang(state),
            Some(Fate::Fail) => Answer::Fail,
            Some(Fate::Unseen) => {
                state.fails_after = true;
                return Ok(());
            }
            Some(Fate::Broken) => {
                state.broken = true;
                return Err(failure());
            }
            // Nothing was to be inserted.
            Some(Fate::Row) | None => return Ok(()),
        };
        match answer {
            Answer::Commit => Ok(()),
            Answer::Fail => Err(failure()),
            Answer::Unseen => {
                self.lock().fails_after = true;
                Ok(())
            }
        }
    }

    fn after_commit(&self) -> rusqlite::Result<()> {
        let fails = std::mem::take(&mut self.lock().fails_after);
        if fails { Err(failure()) } else { Ok(()) }
    }
}
