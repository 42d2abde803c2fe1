//! JSON Web Keys of agents: which may verify, and how private ones are kept in files.

mod public_key;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

pub use public_key::{Algorithm, PublicKey, thumbprint};

/// `x` of `test-key-ed25519` (RFC 9421 B.1.4): its private half is printed in the RFC.
pub const RFC9421_TEST_KEY_X: &str = "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs";

/// Thumbprints of the keys whose private halves are printed in RFC 9421 (appendix B.1): `test-key-rsa`,
/// `test-key-rsa-pss`, `test-key-ecc-p256`, `test-key-ed25519`.
const TEST_KEYS: [&str; 4] = [
    "BHj8s0GPnMEQtkaULIM-PLgEhLBbuGUQ1vMxmBWZzEo",
    "oD0HwocPBSfpNy5W3bpJeyFGY_IQ_YpqxSjQ3Yd-CLA",
    "ydQXMtvbsOsZyFir-Y7A8t7fKEM1gbKPvyFkdpu4fvI",
    "poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U",
];

/// Members that only a private key has, of any kind (RFC 7518 §6). `d` is one too.
pub(super) const PRIVATE_MEMBERS: [&str; 7] = ["p", "q", "dp", "dq", "qi", "oth", "k"];

/// A JWK as directories publish it; members that we do not read are ignored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Jwk {
    /// `OKP`, `EC` or `RSA`.
    pub kty: String,
    /// `Ed25519`, `P-256` or `P-384`; not of RSA keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    /// The public key, or the point's first coordinate, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// The second coordinate of a point of P-256 or P-384.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    /// The modulus of an RSA key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    /// The exponent of an RSA key: `AQAB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
    /// The private key: never in a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub d: Option<String>,
    /// A name; computed, not believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// `EdDSA`, `ES256`, `ES384`, `PS512`, or the name of RFC 9421.
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
    #[error("only Ed25519, P-256, P-384 and RSA keys are supported, this is {0}")]
    Unsupported(String),
    /// A member is absent or not of its form.
    #[error("`{0}` must be {1}")]
    Member(&'static str, &'static str),
    /// Signatures under it prove nothing.
    #[error("the key is {0}")]
    Weak(&'static str),
    /// Too short to be safe, or too long to be checked for each request.
    #[error("the RSA key has {0} bits; 2048 to 4096 are supported")]
    RsaBits(usize),
    /// The exponent of an RSA key.
    #[error("`e` must be an odd number from 3 to 2^33 - 1, such as `AQAB`")]
    Exponent,
    /// The private half is published.
    #[error("the key holds a private member, such as `d`")]
    Private,
    /// `use`, `key_ops` or `alg` forbid verifying.
    #[error("`{0}` does not allow verifying signatures with this key")]
    Purpose(&'static str),
    /// The published test key.
    #[error("this is a published test key of RFC 9421; anybody can sign with it")]
    TestKey,
}

impl JwkError {
    /// The member to look at: `kty`.
    pub fn member(&self) -> &'static str {
        match self {
            JwkError::Unsupported(_) => "kty",
            JwkError::Member(name, _) | JwkError::Purpose(name) => name,
            JwkError::RsaBits(_) => "n",
            JwkError::Exponent => "e",
            JwkError::Private => "d",
            JwkError::Weak(_) | JwkError::TestKey => "x",
        }
    }
}

impl Jwk {
    /// The JWK of a public key.
    pub fn from_public(key: &VerifyingKey) -> Jwk {
        let x = Some(URL_SAFE_NO_PAD.encode(key.as_bytes()));
        Jwk { kty: "OKP".into(), crv: Some("Ed25519".into()), x, ..Jwk::default() }
    }

    /// Checks that the key may verify, and parses it.
    ///
    /// # Errors
    /// See [`JwkError`].
    pub fn public_key(&self, allow_test_keys: bool) -> Result<PublicKey, JwkError> {
        let algorithm = match (self.kty.as_str(), self.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => Algorithm::Ed25519,
            ("EC", Some("P-256")) => Algorithm::EcdsaP256,
            ("EC", Some("P-384")) => Algorithm::EcdsaP384,
            ("RSA", _) => Algorithm::RsaPss,
            (kty, crv) => return Err(JwkError::Unsupported(format!("{kty} {}", crv.unwrap_or("")).trim_end().into())),
        };
        if self.d.is_some() {
            return Err(JwkError::Private);
        }
        if self.use_.as_deref().is_some_and(|u| u != "sig") {
            return Err(JwkError::Purpose("use"));
        }
        if self.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
            return Err(JwkError::Purpose("key_ops"));
        }
        if self.alg.as_deref().is_some_and(|alg| !algorithm.is_named(alg)) {
            return Err(JwkError::Purpose("alg"));
        }
        let key = PublicKey::of(self, algorithm)?;
        if !allow_test_keys && TEST_KEYS.contains(&key.thumbprint()) {
            return Err(JwkError::TestKey);
        }
        Ok(key)
    }

    /// Whether `now` (Unix seconds) lies between `nbf` and `exp`.
    pub fn is_current(&self, now: i64) -> bool {
        self.nbf.is_none_or(|nbf| nbf <= now) && self.exp.is_none_or(|exp| now < exp)
    }
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
        check(r#"{"kty":"EC","crv":"P-521","x":"a"}"#, JwkError::Unsupported("EC P-521".into()));
        let form = JwkError::Member("x", "43 characters of base64url, the 32 bytes of an Ed25519 public key");
        check(r#"{"kty":"OKP","crv":"Ed25519"}"#, form.clone());
        check(r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#, form);
        check(&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","d":"AAAA"}}"#), JwkError::Private);
        check(&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","use":"enc"}}"#), JwkError::Purpose("use"));
        check(
            &format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","key_ops":["sign"]}}"#),
            JwkError::Purpose("key_ops"),
        );
        check(&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","alg":"RS256"}}"#), JwkError::Purpose("alg"));
        check(&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{RFC9421_TEST_KEY_X}"}}"#), JwkError::TestKey);
        let weak = JwkError::Weak("no canonical Ed25519 point of large order");
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
            check(&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#), weak.clone());
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
