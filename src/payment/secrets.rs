//! The keys that seal offer ids.
//!
//! The file is JSON: `[{"n": 1, "secret": "base64url of 32 bytes", "sign_from": 0, "revoked": false}]`. A key verifies from
//! load; the one with the latest `sign_from` not in the future signs.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
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

/// What tells a sealing key from others without showing it: `1:8f0a…:0`, number, 8 bytes in hex, `sign_from`.
type Fingerprint<'t> = (&'t str, &'t str, u64);

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

    /// The fingerprints of all keys that are not revoked, with spaces between them: `1:8f0a…:0 2:77c1…:1795521600`.
    pub fn fingerprints(&self) -> String {
        let of = |secret: &Secret| {
            let mut mac = secret.mac();
            mac.update(b"tollgate fingerprint of a sealing key");
            let bytes = mac.finalize().into_bytes();
            let hex: String = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            format!("{}:{hex}:{}", secret.n, secret.sign_from)
        };
        self.0.iter().filter(|secret| !secret.revoked).map(of).collect::<Vec<_>>().join(" ")
    }

    /// The key of this number, unless it is revoked.
    pub fn numbered(&self, n: u8) -> Option<&Secret> {
        self.0.iter().find(|s| s.n == n && !s.revoked)
    }
}

/// Why gateways with these fingerprints refuse each other's offers, now or within a minute; `None` when they don't.
pub fn disagreement(ours: &str, theirs: &str, now: u64) -> Option<String> {
    let parse = |text| -> Vec<Fingerprint<'_>> { fingerprints(text).collect() };
    let (ours, theirs) = (parse(ours), parse(theirs));
    for (whose, signs, knows, others) in [("this one", &ours, &theirs, "that"), ("that one", &theirs, &ours, "this")] {
        for at in [now, now + 60] {
            let signing = signs.iter().filter(|(.., from)| *from <= at).max_by_key(|(n, _, from)| (*from, *n));
            let Some((n, print, _)) = signing else { continue };
            if !knows.iter().any(|(other, known, _)| (other, known) == (n, print)) {
                return Some(format!("{whose} signs with key {n} ({print}), which {others} one does not have"));
            }
        }
    }
    None
}

fn fingerprints(text: &str) -> impl Iterator<Item = Fingerprint<'_>> {
    text.split(' ').filter_map(|print| {
        let (n, rest) = print.split_once(':')?;
        let (hex, from) = rest.split_once(':')?;
        Some((n, hex, from.parse().ok()?))
    })
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
    fn gateways_agree_when_each_has_the_key_that_the_other_signs_with() {
        let entry = |n: u8, from: u64, revoked: bool| {
            let secret = URL_SAFE_NO_PAD.encode([n; 32]);
            format!(r#"{{"n":{n},"secret":"{secret}","sign_from":{from},"revoked":{revoked}}}"#)
        };
        let prints = |entries: &[String]| Secrets::parse(&format!("[{}]", entries.join(","))).unwrap().fingerprints();
        let (old, new) = (entry(1, 0, false), entry(2, 1000, false));
        let (only_old, both) = (prints(std::slice::from_ref(&old)), prints(&[old.clone(), new.clone()]));
        assert!(!both.contains(&URL_SAFE_NO_PAD.encode([1; 32])));
        // Handed out before it signs: nobody is refused.
        assert_eq!(disagreement(&only_old, &both, 900), None);
        assert_eq!(disagreement(&both, &both, 2000), None);
        // It signs within a minute, and one does not have it.
        let why = disagreement(&only_old, &both, 950).unwrap();
        assert!(why.contains("that one signs with key 2"), "{why}");
        assert!(disagreement(&both, &only_old, 1000).unwrap().contains("this one signs with key 2"));
        // Retired, or revoked, while another one still signs with it.
        let only_new = prints(std::slice::from_ref(&new));
        assert!(disagreement(&only_new, &only_old, 2000).is_some());
        assert!(disagreement(&prints(&[entry(1, 0, true), new]), &only_old, 2000).is_some());
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
