//! What went wrong, sorted by what the books do about it.

use rusqlite::ErrorCode;
use tokio_postgres::error::SqlState;

/// Why a statement failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct SqlError {
    /// Whose fault it is.
    pub trouble: Trouble,
    text: String,
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A row is not what its layout says.
    Shape,
    /// One row cannot be written; everything else is well.
    Row,
    /// Others were in the way: nothing is written, the same may be tried again at once.
    Conflict,
    /// The database cannot be reached, read or written now: an I/O error, a full disk, a connection that is gone or silent.
    Unreachable,
    /// The database refuses who asks, or what it is asked for.
    Refused,
    /// It is another program's.
    Foreign,
    /// It is damaged.
    Damaged,
}

impl SqlError {
    pub(in crate::ledger) fn new(trouble: Trouble, text: impl Into<String>) -> SqlError {
        SqlError { trouble, text: text.into() }
    }

    /// A row that is not what its layout says.
    pub(in crate::ledger) fn shape(text: impl Into<String>) -> SqlError {
        SqlError::new(Trouble::Shape, text)
    }
}

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> SqlError {
        use ErrorCode::*;
        let trouble = match error.sqlite_error_code() {
            // Not SQLite's but ours: a column has another type than the layout says.
            None => Trouble::Shape,
            Some(ConstraintViolation | ParameterOutOfRange | TooBig | TypeMismatch) => Trouble::Row,
            Some(
                CannotOpen
                | DatabaseBusy
                | DatabaseLocked
                | DiskFull
                | FileLockingProtocolFailed
                | OutOfMemory
                | PermissionDenied
                | ReadOnly
                | SystemIoFailure,
            ) => Trouble::Unreachable,
            Some(NotADatabase) => Trouble::Foreign,
            // The file does not hold what its layout says, a table is missing for one.
            Some(_) => Trouble::Damaged,
        };
        SqlError::new(trouble, error.to_string())
    }
}

impl From<tokio_postgres::Error> for SqlError {
    fn from(error: tokio_postgres::Error) -> SqlError {
        let Some(told) = error.as_db_error() else {
            // The connection's, or a value's that the driver would not send.
            let text = std::error::Error::source(&error).map_or_else(|| error.to_string(), |s| format!("{error}: {s}"));
            // The server asked for a password, and there is none to give.
            let refused = text.ends_with("password missing");
            return SqlError::new(if refused { Trouble::Refused } else { Trouble::Unreachable }, text);
        };
        let code = told.code();
        let trouble = match &code.code()[..2] {
            // Two writers met: a deadlock, a serialization failure, a key that another transaction has just taken.
            _ if [&SqlState::UNIQUE_VIOLATION, &SqlState::LOCK_NOT_AVAILABLE].contains(&code) => Trouble::Conflict,
            "40" => Trouble::Conflict,
            // Data exceptions and constraints.
            "22" | "23" => Trouble::Row,
            // No such database, wrong password, no right.
            "28" | "3D" => Trouble::Refused,
            _ if code == &SqlState::INSUFFICIENT_PRIVILEGE => Trouble::Refused,
            // A column or table that is missing, an index that is broken.
            "42" | "XX" => Trouble::Damaged,
            // Connections, resources, shutting down, a statement that took too long, read-only.
            _ => Trouble::Unreachable,
        };
        SqlError::new(trouble, format!("{} ({})", told.message(), code.code()))
    }
}
