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
    /// Of a command's option: a file, or the URL of a database; `password` stands for one in the URL.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn parse(text: &str, password: Option<&str>) -> Result<Location, String> {
        match text.split_once("://") {
            Some(("postgres" | "postgresql", _)) => {
                Server::parse(text, password, None).map(|server| Location::Server(Arc::new(server)))
            }
            _ => Ok(Location::File(text.into())),
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
