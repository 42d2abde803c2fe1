//! Where a ledger is.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{file::OpenError, postgres::server::Server, sql::SqlError};

/// A file of one gateway, or a database that several share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// An SQLite file.
    File(PathBuf),
    /// A PostgreSQL database.
    Server(Arc<Server>),
}

impl Location {
    /// Of a command's option: a file, also as configurations have it (`sqlite:books.sqlite`), or the URL of a database;
    /// `password` stands for one in the URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, password: Option<&str>) -> Result<Location, String> {
        match text.split_once("://") {
            Some(("postgres" | "postgresql", _)) => {
                return Server::parse(text, password, None).map(|server| Location::Server(Arc::new(server)));
            }
            Some((scheme, _)) if scheme != "sqlite" && !scheme.contains('/') => {
                return Err(format!("books are not kept at `{scheme}:`"));
            }
            _ => {}
        }
        let path = match text.strip_prefix("sqlite:") {
            Some(path) => path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path),
            None => text,
        };
        match path {
            "" => Err("the file is missing".to_owned()),
            path if Path::new(path).is_dir() => Err(format!("{path} is a directory")),
            path => Ok(Location::File(path.into())),
        }
    }

    /// For people, without a password: a path, or `postgres://books@db.example:5432/tollgate`.
    pub fn shown(&self) -> PathBuf {
        match self {
            Location::File(path) => path.clone(),
            Location::Server(server) => server.shown().into(),
        }
    }

    /// The file, where it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Location::File(path) => Some(path),
            Location::Server(_) => None,
        }
    }

    /// Sorts an error of its database.
    pub(super) fn error(&self, error: &SqlError) -> OpenError {
        match self {
            Location::File(path) => OpenError::from_sql(path, error),
            Location::Server(server) => server.error(error),
        }
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Location {
        Location::File(path.to_owned())
    }
}

impl From<&PathBuf> for Location {
    fn from(path: &PathBuf) -> Location {
        Location::File(path.clone())
    }
}

impl From<&Location> for Location {
    fn from(location: &Location) -> Location {
        location.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_as_in_a_shell_or_as_in_a_configuration() {
        let check = |text: &str, path: &str| assert_eq!(Location::parse(text, None), Ok(Location::File(path.into())));
        check("books.sqlite", "books.sqlite");
        check("sqlite:books.sqlite", "books.sqlite");
        check("sqlite:/var/books.sqlite", "/var/books.sqlite");
        check("sqlite:///var/books.sqlite", "/var/books.sqlite");
        check("./a://b", "./a://b");
        let wrong = |text: &str, said: &str| assert!(Location::parse(text, None).unwrap_err().contains(said), "{text}");
        wrong("mysql://books@db/books", "`mysql:`");
        wrong("/", "/ is a directory");
        wrong("sqlite:", "missing");
        wrong("postgres://db/", "name is missing");
    }
}
