//! Books in a file, in a directory of their own.

use std::path::PathBuf;

use rusqlite::{Connection, types::ValueRef};
use tempfile::TempDir;
use tollgate::ledger::{location::Location, sqlite::SqliteStore, store::ClaimRequest};

use crate::support::{Ledger, Row};

pub struct Home {
    dir: TempDir,
}

impl Home {
    /// Property tests have all of their cases.
    pub const SLOWER: u32 = 1;
    /// A claim is answered from memory, even while its payment is being written about.
    pub const CLAIMS_WAIT: bool = false;
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

    pub fn used(&self, store: &SqliteStore, request: &ClaimRequest) -> i64 {
        store.used(request).get()
    }

    /// A process that was killed has left: the kernel has its lock already.
    pub fn bury(&self) {}

    pub fn rows(&self, sql: &str) -> Vec<Row> {
        let connection = Connection::open(self.path()).unwrap();
        let mut statement = connection.prepare(sql).unwrap();
        let columns = statement.column_count();
        let text = |value: ValueRef<'_>| match value {
            ValueRef::Null => None,
            ValueRef::Integer(number) => Some(number.to_string()),
            ValueRef::Text(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
            ValueRef::Blob(bytes) => Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
            ValueRef::Real(_) => panic!("the books have no fractions"),
        };
        let read = |row: &rusqlite::Row<'_>| (0..columns).map(|i| row.get_ref(i).map(text)).collect();
        statement.query_map((), read).unwrap().map(Result::unwrap).collect()
    }

    pub fn change(&self, sql: &str) -> u64 {
        let connection = Connection::open(self.path()).unwrap();
        connection.execute_batch(sql).unwrap();
        connection.total_changes()
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
