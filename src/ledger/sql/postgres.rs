//! The port over a connection to a server.
//!
//! The driver is asynchronous; each [`Connection`] drives its own from the thread that asks, and never longer than the
//! limit of a call. A call that ran out of time leaves a connection of which nothing is known: it is broken from then on, and
//! so is one that was cut. Whoever needs another connects again.

use std::{
    cell::{Cell as Shared, RefCell},
    collections::HashMap,
    time::Duration,
    vec,
};

use bytes::BytesMut;
use tokio::{runtime::Runtime, time::timeout};
use tokio_postgres::{
    Client, Row as PgRow, Statement,
    types::{IsNull, ToSql, Type, to_sql_checked},
};

use super::{Cell, SqlError, SqlResult, Trouble, Value};

/// Rows that a page of a long reading has.
const PAGE: usize = 500;

/// A connection, and the thread's way to drive it.
pub struct Connection {
    runtime: Runtime,
    client: Client,
    /// The longest that a call may take.
    limit: Duration,
    statements: RefCell<HashMap<String, Statement>>,
    cursors: Shared<u64>,
    /// Rows come in pages, inside a transaction that only reads.
    pub(super) pages: Shared<bool>,
    broken: Shared<bool>,
}

impl Connection {
    /// Of a client whose connection is driven by `runtime`, a runtime of this thread alone.
    pub(in crate::ledger) fn new(runtime: Runtime, client: Client, limit: Duration) -> Connection {
        let (statements, cursors) = (RefCell::default(), Shared::new(0));
        let (pages, broken) = (Shared::new(false), Shared::new(false));
        Connection { runtime, client, limit, statements, cursors, pages, broken }
    }

    /// Whether nothing more is to be had of it.
    pub(in crate::ledger) fn is_broken(&self) -> bool {
        self.broken.get() || self.client.is_closed()
    }

    /// Whether the connection has ended since it was used last: nothing that was asked meanwhile has left.
    pub(super) fn has_ended(&self) -> bool {
        // Lets the connection read that it was closed.
        self.runtime.block_on(async {
            for _ in 0..2 {
                tokio::task::yield_now().await;
            }
        });
        self.is_broken()
    }

    /// Runs `work` for at most the limit of a call.
    fn drive<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> SqlResult<T> {
        if self.is_broken() {
            return Err(SqlError::new(Trouble::Unreachable, "the connection to the database is gone"));
        }
        match self.runtime.block_on(async { timeout(self.limit, work).await }) {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                if error.as_db_error().is_none() {
                    self.broken.set(true);
                }
                Err(error.into())
            }
            Err(_) => {
                self.broken.set(true);
                let text = format!("the database did not answer within {} s", self.limit.as_secs_f32());
                Err(SqlError::new(Trouble::Unreachable, text))
            }
        }
    }

    pub(super) fn run(&self, sql: &str) -> SqlResult<()> {
        self.drive(self.client.batch_execute(sql))
    }

    pub(super) fn execute(&self, sql: &str, params: &[Value<'_>]) -> SqlResult<u64> {
        let statement = self.statement(sql)?;
        self.drive(self.client.execute_raw(&statement, params.iter().copied()))
    }

    pub(super) fn query(&self, sql: &str, params: &[Value<'_>]) -> SqlResult<Vec<PgRow>> {
        let statement = self.statement(sql)?;
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|value| value as _).collect();
        self.drive(self.client.query(&statement, &params))
    }

    /// Rows page by page, in a transaction that reads and where numbers are the only parameters: a cursor wants them in its
    /// text. Else all of them.
    pub(super) fn rows<'s>(&'s self, sql: &str, params: &[Value<'_>]) -> SqlResult<Rows<'s>> {
        let Some(sql) = self.pages.get().then(|| with_numbers(sql, params)).flatten() else {
            let page = self.query(sql, params)?.into_iter();
            return Ok(Rows { connection: self, cursor: None, page, row: None });
        };
        let cursor = self.cursors.get() + 1;
        self.cursors.set(cursor);
        self.run(&format!("DECLARE c{cursor} NO SCROLL CURSOR FOR {sql}"))?;
        Ok(Rows { connection: self, cursor: Some(cursor), page: Vec::new().into_iter(), row: None })
    }

    fn statement(&self, sql: &str) -> SqlResult<Statement> {
        if let Some(statement) = self.statements.borrow().get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.drive(self.client.prepare(&dollars(sql)))?;
        self.statements.borrow_mut().insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

/// Rows on their way, in pages.
pub struct Rows<'s> {
    connection: &'s Connection,
    /// None where no page is to come.
    cursor: Option<u64>,
    page: vec::IntoIter<PgRow>,
    row: Option<PgRow>,
}

impl Rows<'_> {
    pub(super) fn next(&mut self) -> SqlResult<Option<&PgRow>> {
        self.row = self.page.next();
        if let (None, Some(cursor)) = (&self.row, self.cursor) {
            let fetch = format!("FETCH {PAGE} FROM c{cursor}");
            let page = self.connection.drive(self.connection.client.query(fetch.as_str(), &[]))?;
            if page.len() < PAGE {
                self.close();
            }
            self.page = page.into_iter();
            self.row = self.page.next();
        }
        Ok(self.row.as_ref())
    }

    fn close(&mut self) {
        if let Some(cursor) = self.cursor.take() {
            // It ends with its transaction too.
            let _ = self.connection.run(&format!("CLOSE c{cursor}"));
        }
    }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        self.close();
    }
}

/// `?1` as PostgreSQL writes it.
fn dollars(sql: &str) -> String {
    sql.replace('?', "$")
}

/// The statement with its parameters in it; `None` where one is no number, or there is no transaction's worth of rows.
fn with_numbers(sql: &str, params: &[Value<'_>]) -> Option<String> {
    let mut out = String::with_capacity(sql.len() + 16);
    let mut rest = sql;
    while let Some((before, after)) = rest.split_once('?') {
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let index: usize = after[..end].parse().ok()?;
        let Value::Int(number) = params.get(index.checked_sub(1)?)? else { return None };
        out.push_str(before);
        // In quotes, for the least number has no literal without.
        out.push_str(&format!("'{number}'::bigint"));
        rest = &after[end..];
    }
    out.push_str(rest);
    Some(out)
}

pub(super) fn cell(row: &PgRow, column: usize) -> SqlResult<Cell<'_>> {
    let kind = row.columns().get(column).map(|column| column.type_().clone());
    let read = |error: tokio_postgres::Error| SqlError::shape(error.to_string());
    Ok(match kind {
        Some(Type::INT8) => row.try_get::<_, Option<i64>>(column).map_err(read)?.map_or(Cell::Null, Cell::Int),
        Some(Type::INT4) => {
            let number = row.try_get::<_, Option<i32>>(column).map_err(read)?;
            number.map_or(Cell::Null, |number| Cell::Int(number.into()))
        }
        Some(Type::BOOL) => {
            let flag = row.try_get::<_, Option<bool>>(column).map_err(read)?;
            flag.map_or(Cell::Null, |flag| Cell::Int(flag.into()))
        }
        Some(Type::TEXT) => row.try_get::<_, Option<&str>>(column).map_err(read)?.map_or(Cell::Null, Cell::Text),
        Some(Type::BYTEA) => row.try_get::<_, Option<&[u8]>>(column).map_err(read)?.map_or(Cell::Null, Cell::Blob),
        Some(_) => Cell::Other,
        None => return Err(SqlError::shape(format!("there is no column {column}"))),
    })
}

impl ToSql for Value<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match (*self, kind) {
            (Value::Null, _) => Ok(IsNull::Yes),
            (Value::Int(number), &Type::INT4) => i32::try_from(number)?.to_sql(kind, out),
            (Value::Int(number), &Type::INT8) => number.to_sql(kind, out),
            (Value::Text(text), &Type::TEXT) => text.to_sql(kind, out),
            (Value::Blob(bytes), &Type::BYTEA) => bytes.to_sql(kind, out),
            (Value::Ints(numbers), &Type::INT8_ARRAY) => numbers.to_sql(kind, out),
            (Value::Texts(texts), &Type::TEXT_ARRAY) => texts.to_sql(kind, out),
            (Value::Blobs(list), &Type::BYTEA_ARRAY) => list.to_sql(kind, out),
            (value, kind) => Err(format!("{value:?} is no {kind}").into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_in_a_cursors_text_and_nothing_else_does() {
        let sql = "SELECT n FROM entries WHERE n BETWEEN ?1 AND ?2";
        assert_eq!(dollars(sql), "SELECT n FROM entries WHERE n BETWEEN $1 AND $2");
        let filled = with_numbers(sql, &[Value::Int(-5), Value::Int(7)]);
        assert_eq!(filled.as_deref(), Some("SELECT n FROM entries WHERE n BETWEEN '-5'::bigint AND '7'::bigint"));
        assert_eq!(with_numbers(sql, &[Value::Int(1), Value::Text("2")]), None);
        assert_eq!(with_numbers(sql, &[Value::Int(1)]), None);
    }
}
