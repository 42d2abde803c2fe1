//! The port over a file.

use rusqlite::{
    Connection, ToSql, params_from_iter,
    types::{ToSqlOutput, ValueRef},
};

use super::{Cell, Row, SqlError, SqlResult, Value};

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Value::Null => ValueRef::Null,
            Value::Int(number) => ValueRef::Integer(number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
            Value::Ints(_) | Value::Texts(_) | Value::Blobs(_) => {
                return Err(rusqlite::Error::ToSqlConversionFailure("SQLite has no lists".into()));
            }
        }))
    }
}

pub(super) fn execute(connection: &Connection, sql: &str, params: &[Value<'_>]) -> SqlResult<u64> {
    Ok(connection.prepare_cached(sql)?.execute(params_from_iter(params))? as u64)
}

pub(super) fn first<T>(
    connection: &Connection,
    sql: &str,
    params: &[Value<'_>],
    read: impl FnOnce(&Row<'_>) -> SqlResult<T>,
) -> SqlResult<Option<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params_from_iter(params))?;
    rows.next()?.map(|row| read(&Row::Sqlite(row))).transpose()
}

pub(super) fn cell<'r>(row: &'r rusqlite::Row<'_>, column: usize) -> SqlResult<Cell<'r>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Int(number),
        ValueRef::Text(text) => Cell::Text(std::str::from_utf8(text).map_err(|e| SqlError::shape(e.to_string()))?),
        ValueRef::Blob(bytes) => Cell::Blob(bytes),
        ValueRef::Real(_) => Cell::Other,
    })
}
