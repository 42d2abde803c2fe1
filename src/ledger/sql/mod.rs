//! What the books ask of a database: statements, rows, transactions. SQLite and PostgreSQL answer.
//!
//! Statements are written once, in the words that both understand: parameters `?1`, integers of 64 bits, texts and bytes,
//! conflicts with their columns named, sums cast back to `BIGINT`. Everything is synchronous; the thread that asks waits.
//!
//! A [`Session`] is one connection, used by one thread. Rows of a statement are read in pages inside a transaction, so
//! that a ledger of any size is read in memory of a fixed size; another statement may be asked between two rows.

mod error;
pub mod postgres;
mod sqlite;
mod value;

use std::ops::Deref;

pub use error::{SqlError, Trouble};
pub(super) use value::{Cell, FromCell, Value};

/// The parameters of a statement: `params![n, account]`.
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$($crate::ledger::sql::Value::from($value)),*] };
}
pub(super) use params;

/// What a call comes to.
pub type SqlResult<T> = Result<T, SqlError>;

/// A connection to a ledger's database.
pub enum Session {
    /// A file.
    Sqlite(rusqlite::Connection),
    /// A server.
    Postgres(postgres::Connection),
}

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Everything as it was at one moment, whatever is written meanwhile.
    Read,
    /// Rows are written; who wrote them first is waited for.
    Write,
}

impl Session {
    /// Runs a statement; the number of rows that it wrote.
    pub(super) fn execute(&self, sql: &str, params: &[Value<'_>]) -> SqlResult<u64> {
        match self {
            Session::Sqlite(connection) => sqlite::execute(connection, sql, params),
            Session::Postgres(connection) => connection.execute(sql, params),
        }
    }

    /// Runs statements without parameters, `;` between them.
    pub(super) fn run(&self, sql: &str) -> SqlResult<()> {
        match self {
            Session::Sqlite(connection) => Ok(connection.execute_batch(sql)?),
            Session::Postgres(connection) => connection.run(sql),
        }
    }

    /// The first row, if there is one.
    pub(super) fn first<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        read: impl FnOnce(&Row<'_>) -> SqlResult<T>,
    ) -> SqlResult<Option<T>> {
        match self {
            Session::Sqlite(connection) => sqlite::first(connection, sql, params, read),
            Session::Postgres(connection) => {
                let rows = connection.query(sql, params)?;
                rows.first().map(|row| read(&Row::Postgres(row))).transpose()
            }
        }
    }

    /// The row of a statement that always has one.
    pub(super) fn one<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        read: impl FnOnce(&Row<'_>) -> SqlResult<T>,
    ) -> SqlResult<T> {
        self.first(sql, params, read)?.ok_or_else(|| SqlError::shape("a row is missing"))
    }

    /// The one column of a row that is always there.
    pub(super) fn cell<T: for<'c> FromCell<'c>>(&self, sql: &str, params: &[Value<'_>]) -> SqlResult<T> {
        self.one(sql, params, |row| row.get(0))
    }

    /// All rows, in memory.
    pub(super) fn all<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> SqlResult<T>,
    ) -> SqlResult<Vec<T>> {
        let mut statement = self.prepare(sql)?;
        let mut rows = statement.query(params)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(read(&row)?);
        }
        Ok(all)
    }

    /// A statement whose rows are read one after the other.
    pub(super) fn prepare<'s>(&'s self, sql: &'s str) -> SqlResult<Statement<'s>> {
        Ok(match self {
            Session::Sqlite(connection) => Statement::Sqlite(connection.prepare_cached(sql)?),
            Session::Postgres(connection) => Statement::Postgres(connection, sql),
        })
    }

    /// Begins a transaction. It ends with [`Transaction::commit`]; dropped, it is undone.
    pub(super) fn begin(&self, what: Begin) -> SqlResult<Transaction<'_>> {
        self.run(match (self, what) {
            (Session::Sqlite(_), Begin::Read) => "BEGIN",
            (Session::Sqlite(_), Begin::Write) => "BEGIN IMMEDIATE",
            (Session::Postgres(_), Begin::Read) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            (Session::Postgres(_), Begin::Write) => "BEGIN",
        })?;
        self.pages(what == Begin::Read);
        Ok(Transaction { session: self, ended: false })
    }

    /// An expression: `byte` before the bytes of another expression.
    pub(super) fn prefixed(&self, byte: u8, bytes: &str) -> String {
        match self {
            Session::Sqlite(_) => format!("CAST(x'{byte:02x}' || {bytes} AS BLOB)"),
            Session::Postgres(_) => format!("('\\x{byte:02x}'::bytea || {bytes})"),
        }
    }

    /// Whether the connection has ended while nothing was asked of it, so that another one is needed, and nothing is in doubt.
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Session::Sqlite(_) => false,
            Session::Postgres(connection) => connection.has_ended(),
        }
    }

    /// Whether long readings come in pages from now on.
    fn pages(&self, on: bool) {
        if let Session::Postgres(connection) = self {
            connection.pages.set(on);
        }
    }

    /// The connection, where the ledger is a file.
    pub(super) fn sqlite(&self) -> Option<&rusqlite::Connection> {
        match self {
            Session::Sqlite(connection) => Some(connection),
            Session::Postgres(_) => None,
        }
    }
}

/// A transaction in which its session's statements run.
pub(super) struct Transaction<'s> {
    session: &'s Session,
    ended: bool,
}

impl Transaction<'_> {
    /// Makes it durable. An error leaves open whether it is.
    pub(super) fn commit(mut self) -> SqlResult<()> {
        self.end("COMMIT")
    }

    /// Undoes it.
    pub(super) fn rollback(mut self) -> SqlResult<()> {
        self.end("ROLLBACK")
    }

    fn end(&mut self, how: &str) -> SqlResult<()> {
        self.ended = true;
        self.session.pages(false);
        self.session.run(how)
    }
}

impl Deref for Transaction<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // A connection that can't undo is not used again; the database undoes by itself.
            let _ = self.end("ROLLBACK");
        }
    }
}

/// A statement that can be asked.
pub(super) enum Statement<'s> {
    Sqlite(rusqlite::CachedStatement<'s>),
    Postgres(&'s postgres::Connection, &'s str),
}

impl Statement<'_> {
    pub(super) fn query(&mut self, params: &[Value<'_>]) -> SqlResult<Rows<'_>> {
        Ok(match self {
            Statement::Sqlite(statement) => {
                Rows::Sqlite(statement.query(rusqlite::params_from_iter(params.iter().copied()))?)
            }
            Statement::Postgres(connection, sql) => Rows::Postgres(connection.rows(sql, params)?),
        })
    }
}

/// Rows on their way.
pub(super) enum Rows<'s> {
    Sqlite(rusqlite::Rows<'s>),
    Postgres(postgres::Rows<'s>),
}

impl Rows<'_> {
    pub(super) fn next(&mut self) -> SqlResult<Option<Row<'_>>> {
        Ok(match self {
            Rows::Sqlite(rows) => rows.next()?.map(Row::Sqlite),
            Rows::Postgres(rows) => rows.next()?.map(Row::Postgres),
        })
    }
}

/// A row.
pub(super) enum Row<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    Postgres(&'r tokio_postgres::Row),
}

impl<'r> Row<'r> {
    /// A column, from 0.
    pub(super) fn get<'c, T: FromCell<'c>>(&'c self, column: usize) -> SqlResult<T> {
        T::from_cell(self.raw(column)?).ok_or_else(|| SqlError::shape(format!("column {column} is of another type")))
    }

    fn raw(&self, column: usize) -> SqlResult<Cell<'_>> {
        match self {
            Row::Sqlite(row) => sqlite::cell(row, column),
            Row::Postgres(row) => postgres::cell(row, column),
        }
    }
}
