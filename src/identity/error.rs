//! What goes wrong with identities.

use std::{io, path::PathBuf, time::Duration};

use crate::wire::{directory::DirectoryError, signature::directory};

/// Why the part that reads directories cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `identity.ca_file` holds no roots.
    #[error("identity.ca_file {}: {reason}", path.display())]
    CaFile {
        /// As configured.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A pin that the configuration's check should have refused.
    #[error("the pinned key of {agent}: {reason}")]
    Pin {
        /// As configured.
        agent: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS library's own configuration.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a directory could not be read. `Display` is for the agent's developer, who may be anybody: it names no address and
/// quotes no answer. `Debug` is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Some address of the host is not public, and the origin is not listed as it stands.
    #[error("its host is not at a public address")]
    Address,
    /// No answer from the resolver.
    #[error("its host name cannot be resolved")]
    Resolve(io::Error),
    /// No TCP connection to any address.
    #[error("no connection to its host could be made")]
    Connect(io::Error),
    /// Handshake or certificate.
    #[error("no trusted TLS connection to its host could be made")]
    Tls(io::Error),
    /// Not done in time.
    #[error("it was not read within {} ms", .0.as_millis())]
    Deadline(Duration),
    /// Not 200.
    #[error("it answered {status}; only 200 counts, and redirects are not followed")]
    Status {
        /// The status.
        status: u16,
        /// When its host wants to be asked again, at most five minutes.
        retry_after: Option<Duration>,
    },
    /// No HTTP/1.1, a head beyond the limits, or cut off.
    #[error("its answer is no complete HTTP/1.1 message of usual size")]
    Http(hyper::Error),
    /// Not one `Content-Type` of a directory.
    #[error("its media type is not application/http-message-signatures-directory+json")]
    MediaType,
    /// Compressed.
    #[error("it has a content coding; it must be sent without one")]
    Encoding,
    /// Too many bytes.
    #[error("it is longer than {max} bytes")]
    TooLarge {
        /// The limit.
        max: usize,
    },
    /// Not JSON of the right shape, or too many keys.
    #[error("{}", directory_text(.0))]
    Directory(DirectoryError),
    /// One of its keys signed it, and the signature does not hold.
    #[error("{0}")]
    Signature(directory::Error),
    /// None of its keys signed it, and `identity.require_signed_directories` asks for that.
    #[error("none of its keys has signed it, which this gateway asks for")]
    Unsigned,
    /// Too many directories are being read.
    #[error("too many directories are being read")]
    Busy,
    /// Ours.
    #[error("the gateway failed to read it")]
    Internal(String),
}

/// Without the parser's words, which quote the answer.
fn directory_text(error: &DirectoryError) -> String {
    match error {
        DirectoryError::Shape(_) => r#"it is not JSON of the shape {"keys": [JWK, …]}"#.to_owned(),
        DirectoryError::TooMany { .. } => error.to_string(),
    }
}
