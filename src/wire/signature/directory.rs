//! The signature of a key directory over its own answer (Web Bot Auth): whoever serves the keys has them.
//!
//! Source: draft-meunier-webbotauth-httpsig-protocol, «Directory response signature».

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, InnerList, ListEntry};

use super::{
    COMPONENTS_MAX, LABELS_MAX, SignatureParams, field, inner_list_text, parse_dictionary, required, signature_bytes,
};
use crate::wire::{
    content_digest::{self, ContentDigest},
    directory::DirectoryKey,
};

/// The tag of such signatures; others say nothing about the keys.
pub const TAG: &str = "http-message-signatures-directory";

/// An answer that is a directory.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Whom was asked: `signer.example.com`.
    pub authority: &'a str,
    /// Of the answer.
    pub status: u16,
    /// Of the answer.
    pub headers: &'a HeaderMap,
    /// The directory.
    pub body: &'a [u8],
    /// Unix seconds.
    pub now: i64,
    /// Clock difference that is forgiven, seconds.
    pub skew: i64,
}

/// Why a directory's signature does not hold. Names nothing of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The fields can't be read, or a parameter is missing.
    #[error("its `Signature-Input` and `Signature` can't be read, or lack `created`, `expires` or `keyid`")]
    Syntax,
    /// A covered component is unknown or absent.
    #[error("its signature covers a component that it lacks, or that can't be checked")]
    Component,
    /// It is good for any host.
    #[error("its signature does not cover `@authority`")]
    Authority,
    /// From the future, or over.
    #[error("the times of its signature do not fit")]
    Times,
    /// The digest is of another body.
    #[error("its `Content-Digest` is not that of its body")]
    Digest,
    /// Made by another key, or over something else.
    #[error("its signature does not verify under the key that it names")]
    Differs,
}

/// Whether one of the directory's keys has signed the answer. Signatures by keys that the directory does not have, or of kinds
/// that are not used, say nothing.
///
/// # Errors
/// A signature by one of the keys does not hold.
pub fn check(answer: &Answer<'_>, keys: &[DirectoryKey]) -> Result<bool, Error> {
    if !answer.headers.contains_key("signature-input") {
        return Ok(false);
    }
    let inputs = required(answer.headers, "signature-input").map_err(|_| Error::Syntax)?;
    let inputs = parse_dictionary("signature-input", &inputs).map_err(|_| Error::Syntax)?;
    if inputs.len() > LABELS_MAX {
        return Err(Error::Syntax);
    }
    let mut is_signed = false;
    for (label, entry) in &inputs {
        let ListEntry::InnerList(list) = entry else { continue };
        let is_tagged = list.params.get("tag").and_then(BareItem::as_string).is_some_and(|tag| tag.as_str() == TAG);
        if !is_tagged {
            continue;
        }
        let params = SignatureParams::from_list(list).map_err(|_| Error::Syntax)?;
        let keyid = params.keyid.as_deref().ok_or(Error::Syntax)?;
        let named = |key: &&DirectoryKey| key.public.thumbprint() == keyid || key.jwk.kid.as_deref() == Some(keyid);
        let Some(key) = keys.iter().find(named) else { continue };
        if params.alg.as_deref().is_some_and(|alg| alg != key.public.algorithm().name()) {
            return Err(Error::Differs);
        }
        params.check_times(answer.now, answer.skew, i64::MAX).map_err(|_| Error::Times)?;
        let base = base(answer, list)?;
        let signatures = required(answer.headers, "signature").map_err(|_| Error::Syntax)?;
        let signatures = parse_dictionary("signature", &signatures).map_err(|_| Error::Syntax)?;
        let signature = signature_bytes(&signatures).into_iter().find(|(name, _)| name == label.as_str());
        let (_, signature) = signature.ok_or(Error::Syntax)?;
        if !key.public.verifies(base.as_bytes(), &signature) {
            return Err(Error::Differs);
        }
        is_signed = true;
    }
    Ok(is_signed)
}

/// What was signed: `@authority` of the request (older drafts leave out its `;req`), `@status`, and fields of the answer.
fn base(answer: &Answer<'_>, list: &InnerList) -> Result<String, Error> {
    if list.items.len() > COMPONENTS_MAX {
        return Err(Error::Component);
    }
    let mut lines: Vec<String> = Vec::with_capacity(list.items.len() + 1);
    let mut seen = Vec::new();
    for item in &list.items {
        let name = item.bare_item.as_string().ok_or(Error::Component)?.as_str();
        let mut params = item.params.iter().map(|(name, value)| (name.as_str(), value));
        let of_request = match (params.next(), params.next()) {
            (None, _) => false,
            (Some(("req", BareItem::Boolean(true))), None) => true,
            _ => return Err(Error::Component),
        };
        if seen.contains(&(name, of_request)) {
            return Err(Error::Component);
        }
        seen.push((name, of_request));
        let value = match (name, of_request) {
            ("@authority", _) => answer.authority.to_owned(),
            ("@status", false) => answer.status.to_string(),
            (name, false) if !name.bytes().any(|b| b == b'@' || b.is_ascii_uppercase()) => {
                let field_name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Error::Component)?;
                let value = field(answer.headers, &field_name).ok().flatten().ok_or(Error::Component)?;
                if name == content_digest::FIELD {
                    let mut check = ContentDigest::read(&value, |_| true).map_err(|_| Error::Digest)?.check();
                    check.feed(answer.body);
                    if !check.fits() {
                        return Err(Error::Digest);
                    }
                }
                value
            }
            _ => return Err(Error::Component),
        };
        let req = if of_request { ";req" } else { "" };
        lines.push(format!("\"{name}\"{req}: {value}"));
    }
    if !seen.iter().any(|(name, _)| *name == "@authority") {
        return Err(Error::Authority);
    }
    lines.push(format!("\"@signature-params\": {}", inner_list_text(list)));
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;
    use crate::wire::directory::Directory;
    use crate::wire::jwk::{Jwk, thumbprint};

    const NOW: i64 = 1_700_000_100;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn keys(body: &[u8]) -> Vec<DirectoryKey> {
        Directory::parse(body, 32, false, |_, _| {}).unwrap()
    }

    fn body() -> Vec<u8> {
        serde_json::to_vec(&Directory::of(&[Jwk::from_public(&key(7).verifying_key())])).unwrap()
    }

    /// The answer of a signer that covers this, with these parameters besides its key and tag.
    fn signed(components: &[(&str, &str)], params: &str, by: u8) -> HeaderMap {
        let names: Vec<&str> = components.iter().map(|(name, _)| *name).collect();
        let keyid = thumbprint(&key(by).verifying_key());
        let params = format!("({}){params};keyid=\"{keyid}\";tag=\"{TAG}\"", names.join(" "));
        let lines: String = components.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        let signature = key(by).sign(format!("{lines}\"@signature-params\": {params}").as_bytes()).to_bytes();
        let mut headers = HeaderMap::new();
        headers.insert("signature-input", format!("sig1={params}").parse().unwrap());
        headers.insert("signature", format!("sig1=:{}:", STANDARD.encode(signature)).parse().unwrap());
        headers
    }

    fn checked(headers: &HeaderMap) -> Result<bool, Error> {
        let body = body();
        let authority = "signer.example";
        check(&Answer { authority, status: 200, headers, body: &body, now: NOW, skew: 30 }, &keys(&body))
    }

    const TIMES: &str = ";created=1700000000;expires=1700086400";

    #[test]
    fn a_signature_by_one_of_the_keys_must_hold() {
        let authority = ("\"@authority\";req", "signer.example");
        assert_eq!(checked(&HeaderMap::new()), Ok(false));
        assert_eq!(checked(&signed(&[authority], TIMES, 7)), Ok(true));
        assert_eq!(checked(&signed(&[("\"@authority\"", "signer.example")], TIMES, 7)), Ok(true));
        assert_eq!(checked(&signed(&[authority, ("\"@status\"", "200")], TIMES, 7)), Ok(true));
        let check = |components: &[(&str, &str)], params: &str, error: Error| {
            assert_eq!(checked(&signed(components, params, 7)), Err(error), "{components:?} {params}");
        };
        check(&[("\"@authority\";req", "other.example")], TIMES, Error::Differs);
        check(&[authority, ("\"@status\"", "404")], TIMES, Error::Differs);
        check(&[("\"@status\"", "200")], TIMES, Error::Authority);
        check(&[], TIMES, Error::Authority);
        check(&[authority, authority], TIMES, Error::Component);
        check(&[authority, ("\"@path\";req", "/")], TIMES, Error::Component);
        check(&[authority, ("\"content-type\"", "x")], TIMES, Error::Component);
        check(&[authority], "", Error::Times);
        check(&[authority], ";created=1700000200;expires=1700086400", Error::Times);
        check(&[authority], ";created=1700000000;expires=1700000050", Error::Times);
        check(&[authority], &format!("{TIMES};alg=\"rsa-pss-sha512\""), Error::Differs);
        // Keys that the directory does not have say nothing, and neither do other tags.
        assert_eq!(checked(&signed(&[authority], TIMES, 8)), Ok(false));
        let mut other = signed(&[authority], TIMES, 7);
        let input = other["signature-input"].to_str().unwrap().replace(TAG, "cache");
        other.insert("signature-input", input.parse().unwrap());
        assert_eq!(checked(&other), Ok(false));
        other.insert("signature-input", "(".parse().unwrap());
        assert_eq!(checked(&other), Err(Error::Syntax));
        let mut lone = signed(&[authority], TIMES, 7);
        lone.remove("signature");
        assert_eq!(checked(&lone), Err(Error::Syntax));
    }

    #[test]
    fn a_covered_digest_is_that_of_the_directory() {
        use sha2::{Digest as _, Sha256};
        let sign = |digested: &[u8]| {
            let digest = format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(digested)));
            let covered = [("\"@authority\";req", "signer.example"), ("\"content-digest\"", &digest)];
            let mut headers = signed(&covered, TIMES, 7);
            headers.insert("content-digest", digest.parse().unwrap());
            headers
        };
        assert_eq!(checked(&sign(&body())), Ok(true));
        assert_eq!(checked(&sign(b"{}")), Err(Error::Digest));
    }
}
