//! The ledger's file: its owner's lock, its layout, and whether it is one at all.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::ErrorKind,
    os::unix::{ffi::OsStrExt as _, fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};

use super::{
    chain::{self, Hash},
    day::BookZone,
    sql::{Begin, Session, SqlError, SqlResult, Trouble, params},
    witnessed,
};

/// Marks a SQLite file as ours, `Toll`.
const APPLICATION_ID: i64 = 0x546f_6c6c;
/// Each entry brings a file from its index to the next version.
const MIGRATIONS: [&str; 3] =
    [include_str!("schema/0001.sql"), include_str!("schema/0002.sql"), include_str!("schema/0003.sql")];
/// The first writer of a file.
const SLOT: i64 = 1;
/// How long a transaction waits for another one on the file, such as closing a day.
const BUSY: Duration = Duration::from_secs(5);

/// Why a ledger cannot be opened; each says whose move it is.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another gateway owns it.
    #[error("{path}: another process owns this ledger; stop it, or give this one its own file")]
    Locked {
        /// The ledger.
        path: PathBuf,
    },
    /// Some other file.
    #[error("{path} is not a ledger: {what}; check ledger.url")]
    NotALedger {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        what: String,
    },
    /// Written by a later version.
    #[error("{path} has layout {found}, this version knows layouts up to {known}; run the newer version")]
    Newer {
        /// The ledger.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// It was made for another zone of book days.
    #[error("{path} keeps its days in {found}, the configuration says {wanted}; the zone of a ledger cannot change")]
    Zone {
        /// The ledger.
        path: PathBuf,
        /// The ledger's zone.
        found: String,
        /// The configuration's.
        wanted: String,
    },
    /// No such zone.
    #[error("`{0}` is not an IANA time zone; `Europe/Berlin` is one")]
    NoSuchZone(String),
    /// The file is damaged, or somebody changed it.
    #[error("{path} is damaged: {what}; run `tollgate ledger audit`, restore a backup")]
    Corrupt {
        /// The ledger.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The server cannot be reached.
    #[error("{server}: {what}; is the server up, and may this machine reach it?")]
    Unreachable {
        /// Without its password.
        server: Arc<str>,
        /// The system's or the server's words.
        what: String,
    },
    /// The server refuses who asks.
    #[error("{server} refuses: {what}; check user, password and the database's name")]
    Refused {
        /// Without its password.
        server: Arc<str>,
        /// The server's words.
        what: String,
    },
    /// The server is not one to trust with money.
    #[error("{server}: {what}")]
    Unfit {
        /// Without its password.
        server: Arc<str>,
        /// What was expected, what it is.
        what: String,
    },
    /// The file cannot be read or written.
    #[error("{path}: {what}; check that the directory exists, its owner, and the space on the disk")]
    Io {
        /// The ledger.
        path: PathBuf,
        /// The system's words.
        what: String,
    },
}

impl OpenError {
    /// Whether the ledger may be there later, by somebody's or its own doing, without a change to the configuration: its
    /// directory is missing or may not be entered, the disk fails or is full, another process still has it.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, OpenError::Io { .. } | OpenError::Locked { .. } | OpenError::Unreachable { .. })
    }

    /// Sorts an error of the file system.
    fn from_io(path: &Path, error: &std::io::Error) -> OpenError {
        let (path, what) = (path.to_owned(), error.to_string());
        match error.kind() {
            ErrorKind::IsADirectory | ErrorKind::NotADirectory | ErrorKind::InvalidFilename => {
                OpenError::NotALedger { path, what }
            }
            _ => OpenError::Io { path, what },
        }
    }

    /// Sorts an error of the database.
    pub(super) fn from_sql(path: &Path, error: &SqlError) -> OpenError {
        let (path, what) = (path.to_owned(), error.to_string());
        match error.trouble {
            Trouble::Foreign => OpenError::NotALedger { path, what },
            Trouble::Unreachable | Trouble::Conflict | Trouble::Refused => OpenError::Io { path, what },
            Trouble::Damaged | Trouble::Shape | Trouble::Row => OpenError::Corrupt { path, what },
        }
    }

    /// Sorts an error of SQLite.
    fn from_sqlite(path: &Path, error: rusqlite::Error) -> OpenError {
        OpenError::from_sql(path, &error.into())
    }
}

/// The owner's lock, a file beside the ledger; held until dropped, by the kernel's hand also after a crash.
#[derive(Debug)]
pub(super) struct Owner(#[allow(dead_code, reason = "the open file is the lock")] File);

impl Owner {
    pub(super) fn lock(path: &Path) -> Result<Owner, OpenError> {
        let mut name = OsString::from(path);
        name.push(".lock");
        let io = |error: std::io::Error| OpenError::from_io(Path::new(&name), &error);
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&name).map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Owner(file)),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }
}

/// What is fixed about a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Book {
    pub(super) ledger_id: [u8; 16],
    pub(super) floor_ms: i64,
    /// It was made by this opening.
    pub(super) made: bool,
}

/// Opens the file to write, making it or bringing it to this version. One that is made gets the replay floor `floor_ms`.
pub(super) fn open_to_write(path: &Path, zone: &str, sync: bool, floor_ms: i64) -> Result<(Session, Book), OpenError> {
    BookZone::from_name(zone).ok_or_else(|| OpenError::NoSuchZone(zone.to_owned()))?;
    let io = |error: std::io::Error| OpenError::from_io(path, &error);
    // Made by us rather than by SQLite: only the owner may read it. SQLite gives its other files the same mode.
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path);
    if !file.and_then(|file| file.metadata()).map_err(io)?.is_file() {
        return Err(OpenError::NotALedger { path: path.to_owned(), what: "not a regular file".to_owned() });
    }
    let sqlite = |error: rusqlite::Error| OpenError::from_sqlite(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    connection.busy_timeout(BUSY).map_err(sqlite)?;
    let version = version(&connection, path)?;
    connection.pragma_update(None, "journal_mode", "wal").map_err(sqlite)?;
    connection.pragma_update(None, "synchronous", if sync { "full" } else { "normal" }).map_err(sqlite)?;
    connection.set_prepared_statement_cache_capacity(64);
    let session = Session::Sqlite(connection);
    migrate(&session, version, zone, floor_ms).map_err(|error| match error {
        Migration::Sql(error) => OpenError::from_sql(path, &error),
        Migration::Random(error) => OpenError::Io { path: path.to_owned(), what: error.to_string() },
    })?;
    let (found, mut book) = book(&session).map_err(|error| OpenError::from_sql(path, &error))?;
    book.made = version == 0;
    if found != zone {
        return Err(OpenError::Zone { path: path.to_owned(), found, wanted: zone.to_owned() });
    }
    Ok((session, book))
}

/// Opens the file to read, beside a gateway that writes it.
pub(super) fn open_to_read(path: &Path) -> Result<(Session, Book), OpenError> {
    let sqlite = |error: rusqlite::Error| OpenError::from_sqlite(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    connection.busy_timeout(BUSY).map_err(sqlite)?;
    let (connection, version) = match version(&connection, path) {
        Ok(version) => (connection, version),
        // Even a reader needs files beside it. Where it may not make them, a ledger that nobody has open is read as it is.
        Err(error @ OpenError::Io { .. }) => {
            if !path.is_file() || has_wal(path) {
                return Err(error);
            }
            let url = format!("file:{}?immutable=1", percent_encode(path));
            let connection = Connection::open_with_flags(url, flags | OpenFlags::SQLITE_OPEN_URI).map_err(sqlite)?;
            // The first one says why, should this one fail, too.
            let version = version(&connection, path).map_err(|_| error)?;
            (connection, version)
        }
        Err(error) => return Err(error),
    };
    match version {
        0 => Err(OpenError::NotALedger { path: path.to_owned(), what: "the file is empty".to_owned() }),
        _ => {
            // A listing asks for some two dozen.
            connection.set_prepared_statement_cache_capacity(64);
            let session = Session::Sqlite(connection);
            let (_, book) = book(&session).map_err(|error| OpenError::from_sql(path, &error))?;
            Ok((session, book))
        }
    }
}

/// Whether the newest part of the ledger is in a file beside it: somebody has it open, or has died over it.
fn has_wal(path: &Path) -> bool {
    let mut name = OsString::from(path);
    name.push("-wal");
    fs::metadata(&name).map_or_else(|error| error.kind() != ErrorKind::NotFound, |wal| wal.len() > 0)
}

/// A path as SQLite's URLs have it.
fn percent_encode(path: &Path) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    let bytes = path.as_os_str().as_bytes().iter();
    bytes.map(|byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") }).collect()
}

/// The layout's version; 0 for an empty file.
fn version(connection: &Connection, path: &Path) -> Result<i64, OpenError> {
    let sqlite = |error: rusqlite::Error| OpenError::from_sqlite(path, error);
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sqlite);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_master", (), |row| row.get(0)).map_err(sqlite)?;
    let (application, found) = (number("application_id")?, number("user_version")?);
    let known = MIGRATIONS.len() as i64;
    match (application, found) {
        (0, 0) if tables == 0 => Ok(0),
        (APPLICATION_ID, 1..) if found > known => Err(OpenError::Newer { path: path.to_owned(), found, known }),
        (APPLICATION_ID, 1..) => Ok(found),
        _ => Err(OpenError::NotALedger {
            path: path.to_owned(),
            what: format!("an SQLite file of another program, with {tables} tables"),
        }),
    }
}

/// The layout that a file of ours says it has.
pub(super) fn layout(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

enum Migration {
    Sql(SqlError),
    Random(getrandom::Error),
}

impl<E: Into<SqlError>> From<E> for Migration {
    fn from(error: E) -> Migration {
        Migration::Sql(error.into())
    }
}

/// Runs the missing migrations in one transaction, so that a file is whole or empty.
fn migrate(session: &Session, version: i64, zone: &str, floor_ms: i64) -> Result<(), Migration> {
    let missing = MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(MIGRATIONS.len()));
    if missing.len() == 0 {
        return Ok(());
    }
    let transaction = session.begin(Begin::Write)?;
    for sql in missing {
        transaction.run(sql)?;
    }
    let known = MIGRATIONS.len() as i64;
    if version == 0 {
        let mut ledger_id = [0; 16];
        getrandom::fill(&mut ledger_id).map_err(Migration::Random)?;
        transaction.execute(
            "INSERT INTO book (one, version, zone, replay_floor_ms, ledger_id) VALUES (1, ?1, ?2, ?3, ?4)",
            params![known, zone, floor_ms, &ledger_id],
        )?;
        transaction.execute(
            "INSERT INTO writers (slot, epoch, seq, batch_seq, head, at_ms, open_day) VALUES (?1, 1, 0, 0, ?2, 0, 0)",
            params![SLOT, &chain::genesis(&ledger_id, SLOT)],
        )?;
    } else if version < witnessed::LAYOUT {
        let slot = slot(&transaction)?;
        if let Some(mut head) = head(&transaction, slot)? {
            witnessed::make_up(&transaction, slot, &mut head)?;
        }
    }
    transaction.execute("UPDATE book SET version = ?1", params![known])?;
    if let Some(file) = transaction.sqlite() {
        file.pragma_update(None, "application_id", APPLICATION_ID)?;
        file.pragma_update(None, "user_version", known)?;
    }
    Ok(transaction.commit()?)
}

fn book(session: &Session) -> SqlResult<(String, Book)> {
    session.one("SELECT zone, ledger_id, replay_floor_ms FROM book", &[], |row| {
        Ok((row.get(0)?, Book { ledger_id: row.get(1)?, floor_ms: row.get(2)?, made: false }))
    })
}

/// Where a writer's chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Entries so far.
    pub(super) seq: i64,
    /// Batches so far.
    pub(super) batch_seq: i64,
    /// The last batch's head, or the genesis.
    pub(super) hash: Hash,
    /// The last posting time.
    pub(super) at_ms: i64,
    /// The first day that is not closed.
    pub(super) open_day: i64,
}

/// The writer of a file: the last one, for each that was restored from a copy goes on with a new one.
pub(super) fn slot(connection: &Session) -> SqlResult<i64> {
    connection.cell("SELECT coalesce(max(slot), 1) FROM writers", &[])
}

/// Reads a writer's row.
pub(super) fn head(connection: &Session, slot: i64) -> SqlResult<Option<Head>> {
    let head = "SELECT seq, batch_seq, head, at_ms, open_day FROM writers WHERE slot = ?1";
    connection.first(head, params![slot], |row| {
        Ok(Head {
            seq: row.get(0)?,
            batch_seq: row.get(1)?,
            hash: row.get(2)?,
            at_ms: row.get(3)?,
            open_day: row.get(4)?,
        })
    })
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn what_may_be_there_later_is_told_from_what_is_wrong() {
        let path = Path::new("books.sqlite");
        let io = |kind: ErrorKind| OpenError::from_io(path, &kind.into()).is_unreachable();
        for kind in [
            ErrorKind::NotFound,
            ErrorKind::PermissionDenied,
            ErrorKind::ReadOnlyFilesystem,
            ErrorKind::StorageFull,
            ErrorKind::StaleNetworkFileHandle,
            ErrorKind::Other,
        ] {
            assert!(io(kind), "{kind}");
        }
        for kind in [ErrorKind::IsADirectory, ErrorKind::NotADirectory, ErrorKind::InvalidFilename] {
            assert!(!io(kind), "{kind}");
        }
        let sqlite = |code| {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            OpenError::from_sqlite(path, error).is_unreachable()
        };
        for code in [ffi::SQLITE_CANTOPEN, ffi::SQLITE_BUSY, ffi::SQLITE_IOERR, ffi::SQLITE_READONLY, ffi::SQLITE_FULL]
        {
            assert!(sqlite(code), "{code}");
        }
        // SQLITE_ERROR: a table is missing, a statement does not fit the layout.
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_ERROR, ffi::SQLITE_MISMATCH] {
            assert!(!sqlite(code), "{code}");
        }
        assert!(OpenError::Locked { path: path.to_owned() }.is_unreachable());
    }
}
