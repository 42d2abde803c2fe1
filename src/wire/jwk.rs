//! JSON Web Keys of agents: Ed25519 public keys, their thumbprints, strict verification.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// `x` of `test-key-ed25519` (RFC 9421 B.1.4): its private half is printed in the RFC.
pub const RFC9421_TEST_KEY_X: &str = "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs";

/// A JWK as directories publish it; members that we do not read are ignored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Jwk {
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    /// The public key, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// The private key: never in a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub d: Option<String>,
    /// A name; computed, not believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// `EdDSA` or `Ed25519`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// `sig`.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub use_: Option<String>,
    /// Must hold `verify` when present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_ops: Option<Vec<String>>,
    /// Not valid before, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// Not valid after, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
}

/// Why a key is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwkError {
    /// Another kind of key; skipped in a directory.
    #[error("only OKP keys with crv Ed25519 are supported, this is {0}")]
    Unsupported(String),
    /// `x` is absent or is not 32 bytes of canonical base64url.
    #[error("`x` must be 43 characters of base64url, the 32 bytes of an Ed25519 public key")]
    X,
    /// No canonical point, or one of small order: signatures under it prove nothing.
    #[error("the key is not a canonical Ed25519 point of large order")]
    Weak,
    /// The private half is published.
    #[error("the key holds its private member `d`")]
    Private,
    /// `use`, `key_ops` or `alg` forbid verifying Ed25519 signatures.
    #[error("`{0}` does not allow verifying Ed25519 signatures")]
    Purpose(&'static str),
    /// The published test key.
    #[error("this is the published test key of RFC 9421; anybody can sign with it")]
    TestKey,
}

/// A usable Ed25519 public key, parsed once.
#[derive(Debug, Clone)]
pub struct PublicKey {
    key: VerifyingKey,
    thumbprint: String,
}

impl Jwk {
    /// The JWK of a public key.
    pub fn from_public(key: &VerifyingKey) -> Jwk {
        let x = Some(URL_SAFE_NO_PAD.encode(key.as_bytes()));
        let (d, kid, alg, use_, key_ops, nbf, exp) = (None, None, None, None, None, None, None);
        Jwk { kty: "OKP".into(), crv: Some("Ed25519".into()), x, d, kid, alg, use_, key_ops, nbf, exp }
    }

    /// Checks that the key may verify, and parses it.
    ///
    /// # Errors
    /// See [`JwkError`].
    pub fn public_key(&self, allow_test_keys: bool) -> Result<PublicKey, JwkError> {
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => {}
            (kty, crv) => return Err(JwkError::Unsupported(format!("{kty} {}", crv.unwrap_or("")).trim_end().into())),
        }
        if self.d.is_some() {
            return Err(JwkError::Private);
        }
        if self.use_.as_deref().is_some_and(|u| u != "sig") {
            return Err(JwkError::Purpose("use"));
        }
        if self.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
            return Err(JwkError::Purpose("key_ops"));
        }
        if self
            .alg
            .as_deref()
            .is_some_and(|alg| !alg.eq_ignore_ascii_case("eddsa") && !alg.eq_ignore_ascii_case("ed25519"))
        {
            return Err(JwkError::Purpose("alg"));
        }
        let x = self.x.as_deref().ok_or(JwkError::X)?;
        if x == RFC9421_TEST_KEY_X && !allow_test_keys {
            return Err(JwkError::TestKey);
        }
        PublicKey::from_x(x)
    }

    /// Whether `now` (Unix seconds) lies between `nbf` and `exp`.
    pub fn is_current(&self, now: i64) -> bool {
        self.nbf.is_none_or(|nbf| nbf <= now) && self.exp.is_none_or(|exp| now < exp)
    }
}

impl PublicKey {
    /// Reads the `x` member of an Ed25519 JWK.
    ///
    /// # Errors
    /// [`JwkError::X`] for the form, [`JwkError::Weak`] for the point.
    pub fn from_x(x: &str) -> Result<PublicKey, JwkError> {
        let bytes = URL_SAFE_NO_PAD.decode(x).map_err(|_| JwkError::X)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| JwkError::X)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| JwkError::Weak)?;
        // A non-canonical encoding parses but would give one point two thumbprints.
        if key.is_weak() || key.to_edwards().compress().to_bytes() != bytes {
            return Err(JwkError::Weak);
        }
        Ok(PublicKey { thumbprint: thumbprint(&key), key })
    }

    /// RFC 7638 thumbprint, base64url: `poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U`.
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// The required members in the thumbprint's order, no spaces: what the ledger keeps as evidence.
    pub fn canonical_jwk(&self) -> String {
        canonical(&self.key)
    }

    /// Strict Ed25519: canonical S, no small-order key or R.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let Ok(signature) = Signature::from_slice(signature) else { return false };
        self.key.verify_strict(message, &signature).is_ok()
    }
}

/// RFC 7638 thumbprint of an Ed25519 key (RFC 8037 A.3).
pub fn thumbprint(key: &VerifyingKey) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(canonical(key)))
}

/// Reads a private JWK, as `tollgate keygen` writes it.
///
/// # Errors
/// Says what is wrong; never shows the key.
pub fn signing_key(json: &str) -> Result<SigningKey, String> {
    // What serde says may quote the key.
    let jwk: Jwk = serde_json::from_str(json).map_err(|e| {
        let place = format!("line {}, column {}", e.line(), e.column());
        format!("not a private JWK: expected a JSON object with kty, crv, x and d, found something else at {place}")
    })?;
    if jwk.kty != "OKP" || jwk.crv.as_deref() != Some("Ed25519") {
        // Not what was found: a member may hold the key by mistake.
        return Err("expected kty OKP with crv Ed25519, found another kty or crv".to_owned());
    }
    let d = jwk.d.ok_or("the private member `d` is missing; is this the public key?")?;
    let seed = URL_SAFE_NO_PAD.decode(d).map_err(|_| "`d` is not base64url")?;
    let seed: [u8; 32] = seed.try_into().map_err(|_| "`d` is not 32 bytes")?;
    let key = SigningKey::from_bytes(&seed);
    if jwk.x.is_some_and(|x| x != URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes())) {
        return Err("`x` is not the public key of `d`".to_owned());
    }
    Ok(key)
}

/// The private JWK of a key, one line of JSON.
pub fn signing_key_json(key: &SigningKey) -> String {
    let mut jwk = Jwk::from_public(&key.verifying_key());
    jwk.d = Some(URL_SAFE_NO_PAD.encode(key.as_bytes()));
    jwk.kid = Some(thumbprint(&key.verifying_key()));
    // Strings only: this cannot fail.
    serde_json::to_string(&jwk).unwrap_or_default()
}

fn canonical(key: &VerifyingKey) -> String {
    format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, URL_SAFE_NO_PAD.encode(key.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwk(json: &str) -> Jwk {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_thumbprint_is_that_of_rfc_8037_a_3() {
        let key = PublicKey::from_x("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        assert_eq!(key.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(
            PublicKey::from_x(RFC9421_TEST_KEY_X).unwrap().thumbprint(),
            "poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U"
        );
    }

    #[test]
    fn keys_that_prove_nothing_are_refused() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let check = |json: &str, expect: JwkError| {
            assert_eq!(jwk(json).public_key(false).err(), Some(expect), "{json}");
        };
        check(r#"{"kty":"oct","k":"AAAA"}"#, JwkError::Unsupported("oct".into()));
        check(r#"{"kty":"EC","crv":"P-256","x":"a"}"#, JwkError::Unsupported("EC P-256".into()));
        check(r#"{"kty":"OKP","crv":"Ed25519"}"#, JwkError::X);
        check(r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#, JwkError::X);
        check(&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","d":"AAAA"}}"#), JwkError::Private);
        check(&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","use":"enc"}}"#), JwkError::Purpose("use"));
        check(
            &format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","key_ops":["sign"]}}"#),
            JwkError::Purpose("key_ops"),
        );
        check(&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","alg":"RS256"}}"#), JwkError::Purpose("alg"));
        check(&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{RFC9421_TEST_KEY_X}"}}"#), JwkError::TestKey);
        // The eight points of small order, and non-canonical encodings of some.
        for hex in [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "0000000000000000000000000000000000000000000000000000000000000080",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        ] {
            let bytes: Vec<u8> = (0..64).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
            let x = URL_SAFE_NO_PAD.encode(bytes);
            check(&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#), JwkError::Weak);
        }
    }

    #[test]
    fn a_key_in_the_wrong_form_is_not_shown() {
        let secret = "6a3c1f00deadbeef";
        for text in [
            format!("\"{secret}\""),
            format!("0x{secret}"),
            "1234567890123456e7".to_owned(),
            format!("{{\"d\": {{\"{secret}\": 1}}}}"),
            format!("{{\"kty\": \"{secret}\"}}"),
            format!("{{\"kty\": \"OKP\", \"crv\": \"{secret}\"}}"),
        ] {
            let error = signing_key(&text).unwrap_err();
            assert!(!error.contains(&secret[..6]) && !error.contains("123456"), "{error}");
        }
    }

    #[test]
    fn a_private_key_survives_its_file() {
        let key = SigningKey::from_bytes(&[7; 32]);
        assert_eq!(signing_key(&signing_key_json(&key)).unwrap().to_bytes(), key.to_bytes());
        assert!(signing_key(r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#).unwrap_err().contains("private"));
    }
}
