//! Files that are no ledger, or not ours, or not whole.

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc};

use tollgate::ledger::{
    ledger_store::{LedgerOptions, LedgerStore, OpenError},
    location::Location,
    read::LedgerReader,
};

use crate::support::*;

fn open(options: LedgerOptions) -> Result<Arc<LedgerStore>, OpenError> {
    LedgerStore::open(options)
}

fn refused(options: LedgerOptions) -> OpenError {
    open(options).map(|_| ()).unwrap_err()
}

#[test]
fn one_process_owns_a_ledger() {
    let mut ledger = Ledger::new();
    assert!(matches!(refused(ledger.options()), OpenError::Locked { .. }));
    // Reading needs no lock.
    ledger.pay("a");
    assert_eq!(ledger.audit().entries, 1);
    ledger.reopen().unwrap();
}

#[test]
fn only_the_owner_may_read_the_files() {
    let ledger = Ledger::new();
    ledger.pay("a");
    for file in fs::read_dir(ledger.dir()).unwrap().map(Result::unwrap) {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.file_name());
    }
}

#[test]
fn a_newer_layout_is_refused_by_name() {
    let mut ledger = Ledger::new();
    ledger.close();
    ledger.sql().pragma_update(None, "user_version", 9).unwrap();
    let error = refused(ledger.options());
    assert!(matches!(error, OpenError::Newer { found: 9, known: 3, .. }), "{error}");
    assert!(matches!(LedgerReader::open(&ledger.path()), Err(OpenError::Newer { .. })));
}

/// A reader needs files beside the ledger; where it can make none, as on a file system that is read only, it reads all the same.
#[test]
fn a_ledger_is_read_where_nothing_can_be_written() {
    let mut ledger = Ledger::new();
    ledger.pay("a");
    ledger.close();
    let (path, beside) = (ledger.dir().join("a ledger?#%.sqlite"), ledger.dir().join("a ledger?#%.sqlite-shm"));
    fs::rename(ledger.path(), &path).unwrap();
    std::os::unix::fs::symlink("nowhere/at all", beside).unwrap();
    let report = LedgerReader::open(&path).unwrap().audit(|_, _| ()).unwrap();
    assert_eq!((report.finding, report.entries), (None, 1));
    // Not where its newest part can't be read.
    fs::write(ledger.dir().join("a ledger?#%.sqlite-wal"), "newest").unwrap();
    let error = LedgerReader::open(&path).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
}

#[test]
fn another_programs_file_is_left_alone() {
    let mut ledger = Ledger::new();
    ledger.close();
    let path = ledger.dir().join("other.sqlite");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    let before = fs::read(&path).unwrap();
    let error = refused(options((&path).into(), ledger.clock.clone()));
    assert!(matches!(error, OpenError::NotALedger { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
    let text = ledger.dir().join("notes.txt");
    fs::write(&text, "not a database, and longer than the header of one, which has a hundred bytes. ".repeat(4))
        .unwrap();
    assert!(matches!(refused(options((&text).into(), ledger.clock.clone())), OpenError::NotALedger { .. }));
    assert!(matches!(LedgerReader::open(&text), Err(OpenError::NotALedger { .. })));
}

#[test]
fn a_damaged_ledger_is_not_opened() {
    let mut ledger = Ledger::new();
    for i in 0..50 {
        ledger.pay(&i.to_string());
    }
    ledger.close();
    let whole = fs::read(ledger.path()).unwrap();
    let mut zeroed = whole.clone();
    zeroed[100..].fill(0);
    fs::write(ledger.path(), &zeroed).unwrap();
    assert!(matches!(refused(ledger.options()), OpenError::Corrupt { .. } | OpenError::NotALedger { .. }));
    fs::write(ledger.path(), &whole).unwrap();
    // The end of the chain is checked at start, the rest by an audit.
    ledger.sql().execute("UPDATE entries SET amount = 1 WHERE n = (SELECT max(n) FROM entries)", ()).unwrap();
    let error = refused(ledger.options());
    assert!(matches!(&error, OpenError::Corrupt { what, .. } if what.contains("entry 281474976710706")), "{error}");
}

#[test]
fn a_place_that_cannot_be_written_and_a_zone_that_is_none_are_named() {
    let mut ledger = Ledger::new();
    let nowhere = options(Location::File(ledger.dir().join("missing/books.sqlite")), ledger.clock.clone());
    assert!(matches!(refused(nowhere), OpenError::Io { .. }));
    ledger.close();
    let zone = |name: &str| LedgerOptions { zone: name.to_owned(), ..ledger.options() };
    assert!(matches!(refused(zone("Europe/Nowhere")), OpenError::NoSuchZone(_)));
    let error = refused(zone("Europe/Berlin"));
    assert!(matches!(&error, OpenError::Zone { found, .. } if found == "UTC"), "{error}");
}

/// SQLite's FULL is 2 and NORMAL 1: a commit that is not synced is lost with the machine's power.
#[test]
fn commits_are_synced_unless_the_operator_says_otherwise() {
    struct Sees(std::sync::Mutex<Option<(i64, String)>>);
    impl tollgate::ledger::faults::Faults for Sees {
        fn opened(&self, connection: &rusqlite::Connection) -> rusqlite::Result<()> {
            let synchronous = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
            let journal = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
            *self.0.lock().unwrap() = Some((synchronous, journal));
            Ok(())
        }
    }
    for (sync, expect) in [(true, 2), (false, 1)] {
        let sees = std::sync::Arc::new(Sees(std::sync::Mutex::default()));
        let _ledger = Ledger::with(sees.clone(), |options| options.sync = sync);
        assert_eq!(*sees.0.lock().unwrap(), Some((expect, "wal".to_owned())));
    }
}
