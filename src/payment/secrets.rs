//! The keys that seal offer ids.
//!
//! The file is JSON: `[{"n": 1, "secret": "base64url of 32 bytes", "sign_from": 0, "revoked": false}]`. A key verifies from
//! load; the one with the latest `sign_from` not in the future signs.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// One sealing key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretFile {
    n: u8,
    secret: String,
    sign_from: u64,
    #[serde(default)]
    revoked: bool,
}

/// A sealing key; its bytes are never shown.
#[derive(Clone)]
pub struct Secret {
    /// Its number, carried in ids.
    pub n: u8,
    mac: Hmac<Sha256>,
    sign_from: u64,
    revoked: bool,
}

impl Secret {
    /// An HMAC-SHA-256 under this key, ready for a message.
    pub fn mac(&self) -> Hmac<Sha256> {
        self.mac.clone()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret {{ n: {}, sign_from: {}, revoked: {} }}", self.n, self.sign_from, self.revoked)
    }
}

/// All sealing keys of a gateway.
#[derive(Debug, Clone)]
pub struct Secrets(Vec<Secret>);

impl Secrets {
    /// Reads the file's text.
    ///
    /// # Errors
    /// Says what is wrong without showing a secret.
    pub fn parse(text: &str) -> Result<Secrets, String> {
        let file: Vec<SecretFile> = serde_json::from_str(text).map_err(|e| {
            // serde's words may quote a value of the file.
            format!(
                "expected JSON [{{\"n\", \"secret\", \"sign_from\", \"revoked\"}}]; wrong at line {} column {}",
                e.line(),
                e.column()
            )
        })?;
        let mut secrets = Vec::with_capacity(file.len());
        for entry in file {
            let bytes = URL_SAFE_NO_PAD.decode(&entry.secret).ok().filter(|b| b.len() == 32);
            let mac = bytes
                .and_then(|b| Hmac::new_from_slice(&b).ok())
                .ok_or_else(|| format!("`secret` of key {} is not base64url of 32 bytes", entry.n))?;
            if secrets.iter().any(|s: &Secret| s.n == entry.n) {
                return Err(format!("key number {} stands twice", entry.n));
            }
            secrets.push(Secret { n: entry.n, mac, sign_from: entry.sign_from, revoked: entry.revoked });
        }
        if !secrets.iter().any(|s| !s.revoked) {
            return Err("there is no key that is not revoked".to_owned());
        }
        Ok(Secrets(secrets))
    }

    /// The text of a new file with one key that signs at once.
    pub fn new_file(key: [u8; 32]) -> String {
        let entry = SecretFile { n: 1, secret: URL_SAFE_NO_PAD.encode(key), sign_from: 0, revoked: false };
        // Plain strings and numbers: this cannot fail.
        format!("{}\n", serde_json::to_string(&[entry]).unwrap_or_default())
    }

    /// The key that signs at `now` (Unix seconds): the latest `sign_from` that has come, not revoked.
    pub fn signing(&self, now: u64) -> Option<&Secret> {
        self.0.iter().filter(|s| !s.revoked && s.sign_from <= now).max_by_key(|s| (s.sign_from, s.n))
    }

    /// The key of this number, unless it is revoked.
    pub fn numbered(&self, n: u8) -> Option<&Secret> {
        self.0.iter().find(|s| s.n == n && !s.revoked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_key_that_has_come_signs_and_each_verifies_by_number() {
        let entry = |n: u8, from: u64, revoked: bool| {
            format!(
                r#"{{"n":{n},"secret":"{}","sign_from":{from},"revoked":{revoked}}}"#,
                URL_SAFE_NO_PAD.encode([n; 32])
            )
        };
        let text = format!(
            "[{},{},{},{}]",
            entry(1, 0, false),
            entry(2, 100, false),
            entry(3, 200, false),
            entry(4, 50, true)
        );
        let secrets = Secrets::parse(&text).unwrap();
        let signing = |now| secrets.signing(now).map(|s| s.n);
        assert_eq!((signing(0), signing(150), signing(1000)), (Some(1), Some(2), Some(3)));
        assert_eq!(secrets.numbered(3).map(|s| s.n), Some(3));
        assert!(secrets.numbered(4).is_none() && secrets.numbered(9).is_none());
        assert!(!format!("{secrets:?}").contains("[3, 3"));
    }

    #[test]
    fn a_bad_file_is_refused_without_showing_it() {
        let ok = Secrets::new_file([9; 32]);
        assert!(Secrets::parse(&ok).is_ok());
        let secret = URL_SAFE_NO_PAD.encode([9; 32]);
        for text in [
            "",
            "[]",
            "{}",
            &ok.replace("\"n\":1", "\"n\":300"),
            &ok.replace(&secret, &secret[1..]),
            &ok.replace("revoked\":false", "revoked\":true"),
            &ok.replace("\"n\"", "\"m\""),
        ] {
            let error = Secrets::parse(text).unwrap_err();
            assert!(!error.contains(&secret[1..10]), "{error}");
        }
    }
}
