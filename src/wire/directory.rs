//! Key directories: `{"keys": [JWK, …]}` at `/.well-known/http-message-signatures-directory`.

use serde::{Deserialize, Serialize};

use super::jwk::{Jwk, JwkError, PRIVATE_MEMBERS, PublicKey};

/// Where an agent's directory is served.
pub const WELL_KNOWN: &str = "/.well-known/http-message-signatures-directory";
/// Its media type.
pub const MEDIA_TYPE: &str = "application/http-message-signatures-directory+json";

/// A directory as published. Members other than `keys` are ignored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Directory {
    /// The keys, of any kind.
    pub keys: Vec<serde_json::Value>,
}

/// A key of a directory that may verify.
#[derive(Debug, Clone)]
pub struct DirectoryKey {
    /// The parsed key.
    pub public: PublicKey,
    /// As published, for its times.
    pub jwk: Jwk,
}

/// Why a directory can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// Not JSON of the right shape.
    #[error("expected JSON `{{\"keys\": [JWK, …]}}`: {0}")]
    Shape(String),
    /// More keys than the limit.
    #[error("the directory has {found} keys; at most {max} are read")]
    TooMany {
        /// In the directory.
        found: usize,
        /// The limit.
        max: usize,
    },
}

impl Directory {
    /// A directory of these public keys.
    pub fn of(keys: &[Jwk]) -> Directory {
        Directory { keys: keys.iter().filter_map(|k| serde_json::to_value(k).ok()).collect() }
    }

    /// Reads a directory's body and keeps the keys that may verify; `skipped` receives the others with the reason.
    ///
    /// # Errors
    /// When the body is no directory, or has too many keys. A directory without usable keys is no error: it removes them.
    pub fn parse(
        body: &[u8],
        keys_max: usize,
        allow_test_keys: bool,
        mut skipped: impl FnMut(usize, JwkError),
    ) -> Result<Vec<DirectoryKey>, DirectoryError> {
        let directory: Directory = serde_json::from_slice(body).map_err(|e| DirectoryError::Shape(e.to_string()))?;
        if directory.keys.len() > keys_max {
            return Err(DirectoryError::TooMany { found: directory.keys.len(), max: keys_max });
        }
        let mut keys: Vec<DirectoryKey> = Vec::with_capacity(directory.keys.len());
        for (i, value) in directory.keys.into_iter().enumerate() {
            let kty = value.get("kty").and_then(|v| v.as_str()).unwrap_or("?").to_owned();
            let is_private = PRIVATE_MEMBERS.iter().any(|name| value.get(name).is_some());
            let jwk: Result<Jwk, _> = serde_json::from_value(value);
            let jwk = jwk.map_err(|_| JwkError::Unsupported(kty));
            let jwk = jwk.and_then(|jwk| if is_private { Err(JwkError::Private) } else { Ok(jwk) });
            match jwk.and_then(|jwk| Ok(DirectoryKey { public: jwk.public_key(allow_test_keys)?, jwk })) {
                Ok(key) => keys.push(key),
                Err(error) => skipped(i, error),
            }
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usable_keys_are_kept_and_the_rest_named() {
        let body = br#"{"keys":[
            {"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"whatever"},
            {"kty":"RSA","n":"AQAB","e":"AQAB"}, 7,
            {"kty":"OKP","crv":"Ed25519","x":"AAAA"}], "other": 1}"#;
        let mut skipped = Vec::new();
        let keys = Directory::parse(body, 32, false, |i, e| skipped.push((i, e))).unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!(skipped.iter().map(|(i, _)| *i).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(matches!(
            Directory::parse(body, 3, false, |_, _| {}),
            Err(DirectoryError::TooMany { found: 4, max: 3 })
        ));
        for bad in [&b""[..], b"[]", b"{}", b"{\"keys\":1}", b"\xff"] {
            assert!(matches!(Directory::parse(bad, 3, false, |_, _| {}), Err(DirectoryError::Shape(_))));
        }
    }
}
