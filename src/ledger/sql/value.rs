//! What goes into a statement and comes out of a row.

use std::sync::Arc;

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// A number.
    Int(i64),
    /// UTF-8.
    Text(&'a str),
    /// Bytes.
    Blob(&'a [u8]),
    /// Numbers, for a server.
    Ints(&'a [Option<i64>]),
    /// Texts, for a server.
    Texts(&'a [Option<&'a str>]),
    /// Several bytes, for a server.
    Blobs(&'a [Option<&'a [u8]>]),
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Value::Int(number)
    }
}

impl From<&i64> for Value<'_> {
    fn from(number: &i64) -> Self {
        Value::Int(*number)
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Value::Int(number.into())
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(text)
    }
}

impl<'a> From<&&'a str> for Value<'a> {
    fn from(text: &&'a str) -> Self {
        Value::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Value::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Value::Blob(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Value<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Value::Blob(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Value<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Value::Blob(bytes)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// A column of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'c> {
    /// Nothing.
    Null,
    /// A number.
    Int(i64),
    /// UTF-8.
    Text(&'c str),
    /// Bytes.
    Blob(&'c [u8]),
    /// Something that no column of ours holds.
    Other,
}

/// A type that a column is read as; `None` when the column holds something else.
pub trait FromCell<'c>: Sized {
    /// Reads it.
    fn from_cell(cell: Cell<'c>) -> Option<Self>;
}

impl FromCell<'_> for i64 {
    fn from_cell(cell: Cell<'_>) -> Option<Self> {
        if let Cell::Int(number) = cell { Some(number) } else { None }
    }
}

impl FromCell<'_> for u32 {
    fn from_cell(cell: Cell<'_>) -> Option<Self> {
        i64::from_cell(cell).and_then(|number| number.try_into().ok())
    }
}

impl FromCell<'_> for u16 {
    fn from_cell(cell: Cell<'_>) -> Option<Self> {
        i64::from_cell(cell).and_then(|number| number.try_into().ok())
    }
}

impl FromCell<'_> for bool {
    fn from_cell(cell: Cell<'_>) -> Option<Self> {
        match cell {
            Cell::Int(number @ (0 | 1)) => Some(number == 1),
            _ => None,
        }
    }
}

impl<'c> FromCell<'c> for &'c str {
    fn from_cell(cell: Cell<'c>) -> Option<Self> {
        if let Cell::Text(text) = cell { Some(text) } else { None }
    }
}

impl FromCell<'_> for String {
    fn from_cell(cell: Cell<'_>) -> Option<Self> {
        <&str>::from_cell(cell).map(str::to_owned)
    }
}

impl FromCell<'_> for Arc<str> {
    fn from_cell(cell: Cell<'_>) -> Option<Self> {
        <&str>::from_cell(cell).map(Arc::from)
    }
}

impl<'c> FromCell<'c> for &'c [u8] {
    fn from_cell(cell: Cell<'c>) -> Option<Self> {
        if let Cell::Blob(bytes) = cell { Some(bytes) } else { None }
    }
}

impl FromCell<'_> for Vec<u8> {
    fn from_cell(cell: Cell<'_>) -> Option<Self> {
        <&[u8]>::from_cell(cell).map(<[u8]>::to_vec)
    }
}

impl<const N: usize> FromCell<'_> for [u8; N] {
    fn from_cell(cell: Cell<'_>) -> Option<Self> {
        <&[u8]>::from_cell(cell).and_then(|bytes| bytes.try_into().ok())
    }
}

impl<'c, T: FromCell<'c>> FromCell<'c> for Option<T> {
    fn from_cell(cell: Cell<'c>) -> Option<Self> {
        if cell == Cell::Null { Some(None) } else { T::from_cell(cell).map(Some) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_of_another_type_is_refused_and_never_bent() {
        assert_eq!(i64::from_cell(Cell::Int(-1)), Some(-1));
        assert_eq!(u16::from_cell(Cell::Int(65_536)), None);
        assert_eq!(u32::from_cell(Cell::Int(-1)), None);
        assert_eq!(bool::from_cell(Cell::Int(2)), None);
        assert_eq!(i64::from_cell(Cell::Text("1")), None);
        assert_eq!(i64::from_cell(Cell::Null), None);
        assert_eq!(Option::<i64>::from_cell(Cell::Null), Some(None));
        assert_eq!(Option::<i64>::from_cell(Cell::Text("x")), None);
        assert_eq!(<[u8; 2]>::from_cell(Cell::Blob(&[1, 2, 3])), None);
        assert_eq!(<&str>::from_cell(Cell::Blob(b"text")), None);
        assert_eq!(String::from_cell(Cell::Other), None);
    }
}
