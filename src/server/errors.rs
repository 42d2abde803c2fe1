//! Why a gateway does not start, or goes on as it was.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Listen;
use crate::identity;
use crate::ledger::ledger_store::OpenError;
use crate::tls::server::CertificateError;

/// Why a gateway does not start; nothing was served.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The secret file.
    #[error("secret file {}: {reason}", path.display())]
    Secrets {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The gateway's own key.
    #[error("key file {}: {reason}", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A file of trusted roots.
    #[error("ca_file {}: {reason}", path.display())]
    Roots {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Keys of agents.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] OpenError),
    /// A facilitator's settings.
    #[error("facilitator `{name}`: {reason}")]
    Facilitator {
        /// NAME of its section.
        name: Arc<str>,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A certificate or its key.
    #[error("certificate {0}")]
    Certificate(#[from] CertificateError),
    /// The token of the admin listener.
    #[error("admin.token_file {}: {reason}", path.display())]
    Token {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The access log.
    #[error("telemetry.access_log: {0}")]
    Access(io::Error),
    /// An address to listen on.
    #[error("cannot listen on {listen}: {error}{}", hint(error))]
    Listen {
        /// Which one.
        listen: Listen,
        /// What the system says.
        error: io::Error,
    },
    /// Threads, sockets or descriptors.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another process has it: stop that one, or listen somewhere else",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need the right to bind them",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has the address",
        _ => "",
    }
}

/// Why a gateway goes on with the configuration that it had.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A part of the new one can't be used.
    #[error(transparent)]
    Part(#[from] StartError),
    /// What differs is decided when the process starts.
    #[error("a restart is needed for {}", .0.join(", "))]
    Restart(Vec<&'static str>),
    /// It is ending.
    #[error("the gateway is ending")]
    Ending,
}
