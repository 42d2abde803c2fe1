//! Books in a file, in a directory of their own.

use std::path::PathBuf;

use rusqlite::Connection;
use tempfile::TempDir;
use tollgate::ledger::{ledger_store::LedgerStore, location::Location, store::ClaimRequest};

use crate::support::{Books, Ledger, Row};

pub struct Home {
    dir: TempDir,
}

impl Home {
    /// Property tests have all of their cases.
    pub const SLOWER: u32 = 1;
    /// Another process has all turns at what is owed again.
    pub const TURNS_OF_A_PROCESS: bool = true;

    pub fn new() -> Home {
        Home { dir: tempfile::tempdir().unwrap() }
    }

    pub fn location(&self) -> Location {
        Location::File(self.path())
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("books.sqlite")
    }

    /// What [`Location::parse`] reads.
    pub fn name(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }

    pub fn used(&self, store: &LedgerStore, request: &ClaimRequest) -> i64 {
        store.used(request).get()
    }

    /// A process that was killed has left: the kernel has its lock already.
    pub fn bury(&self) {}

    /// As an earlier version's, where that has the same tables.
    pub fn becomes_layout(&self, version: i64) {
        self.change(&format!("UPDATE book SET version = {version}; PRAGMA user_version = {version}"));
    }

    pub fn rows(&self, sql: &str) -> Vec<Row> {
        Books::rows(&Connection::open(self.path()).unwrap(), sql)
    }

    pub fn change(&self, sql: &str) -> u64 {
        Books::change(&Connection::open(self.path()).unwrap(), sql)
    }
}

/// For tests of the file itself.
impl Ledger {
    pub fn path(&self) -> PathBuf {
        self.home.path()
    }

    pub fn dir(&self) -> &std::path::Path {
        self.home.dir.path()
    }

    pub fn sql(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }
}
