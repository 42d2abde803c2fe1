//! `Content-Digest` (RFC 9530): what a signature that covers it says about the body.

use sfv::{BareItem, Dictionary, ListEntry, Parser};
use sha2::{Digest as _, Sha256, Sha512};

use super::signature::{LabelledSignature, Part};

/// The field.
pub const FIELD: &str = "content-digest";

/// Digests of one body, at least one; all of them must be its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentDigest {
    sha256: Option<[u8; 32]>,
    sha512: Option<[u8; 64]>,
}

impl ContentDigest {
    /// What the signature covers of the field's `value`: all digests, or those of the members that it names. `None` when it
    /// covers nothing of it.
    ///
    /// # Errors
    /// The field is absent or malformed, or nothing that is covered can be checked.
    pub fn covered(signature: &LabelledSignature, value: Option<&str>) -> Result<Option<ContentDigest>, String> {
        let mut components = signature.field_components(FIELD).peekable();
        if components.peek().is_none() {
            return Ok(None);
        }
        let value = value.ok_or("`content-digest` is covered, and is not in the request")?;
        let parts: Vec<&Part> = components.map(|component| &component.part).collect();
        let is_covered = |name: &str| parts.iter().any(|part| !matches!(part, Part::Member(member) if member != name));
        ContentDigest::read(value, is_covered).map(Some)
    }

    /// The digests of the field's `value` that are covered.
    ///
    /// # Errors
    /// It is malformed, or none of them can be checked.
    pub fn read(value: &str, is_covered: impl Fn(&str) -> bool) -> Result<ContentDigest, String> {
        let dictionary: Dictionary = Parser::new(value)
            .parse()
            .map_err(|_| "`Content-Digest` must be `sha-256=:BASE64:` or `sha-512=:BASE64:`")?;
        let mut digests = ContentDigest { sha256: None, sha512: None };
        for (name, entry) in dictionary.iter().filter(|(name, _)| is_covered(name.as_str())) {
            digests.take(name.as_str(), entry)?;
        }
        if digests.sha256.is_none() && digests.sha512.is_none() {
            return Err("no covered digest of `Content-Digest` is of sha-256 or sha-512".to_owned());
        }
        Ok(digests)
    }

    fn take(&mut self, name: &str, entry: &ListEntry) -> Result<(), String> {
        let ListEntry::Item(item) = entry else { return Ok(()) };
        let bytes = match &item.bare_item {
            BareItem::ByteSequence(bytes) => &bytes[..],
            _ => &[],
        };
        let wrong = |_| format!("`{name}` of `Content-Digest` is no digest of its length");
        match name {
            "sha-256" => self.sha256 = Some(bytes.try_into().map_err(wrong)?),
            "sha-512" => self.sha512 = Some(bytes.try_into().map_err(wrong)?),
            // Others are for whoever knows them.
            _ => {}
        }
        Ok(())
    }

    /// Begins to check a body.
    pub fn check(&self) -> Checking {
        Checking {
            sha256: self.sha256.map(|expected| (Sha256::new(), expected)),
            sha512: self.sha512.map(|expected| (Sha512::new(), expected)),
        }
    }
}

/// A body that is being checked.
#[derive(Debug)]
pub struct Checking {
    sha256: Option<(Sha256, [u8; 32])>,
    sha512: Option<(Sha512, [u8; 64])>,
}

impl Checking {
    /// The next bytes of it.
    pub fn feed(&mut self, bytes: &[u8]) {
        if let Some((hash, _)) = &mut self.sha256 {
            hash.update(bytes);
        }
        if let Some((hash, _)) = &mut self.sha512 {
            hash.update(bytes);
        }
    }

    /// Whether what was fed is the body.
    pub fn fits(self) -> bool {
        self.sha256.is_none_or(|(hash, expected)| hash.finalize()[..] == expected)
            && self.sha512.is_none_or(|(hash, expected)| hash.finalize()[..] == expected)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    const SHA256: &str = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";
    const SHA512: &str =
        "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";
    /// The body of RFC 9530 §B and of RFC 9421 B.2.
    const BODY: &[u8] = b"{\"hello\": \"world\"}";

    fn covered(component: &str, value: Option<&str>) -> Result<Option<ContentDigest>, String> {
        let mut headers = HeaderMap::new();
        headers.insert("signature-input", format!("sig1=({component});created=1").parse().unwrap());
        headers.insert("signature", "sig1=:AA==:".parse().unwrap());
        ContentDigest::covered(&LabelledSignature::parse_all(&headers, false).unwrap().remove(0), value)
    }

    fn fits(component: &str, value: &str, body: &[u8]) -> bool {
        let mut check = covered(component, Some(value)).unwrap().unwrap().check();
        body.chunks(5).for_each(|chunk| check.feed(chunk));
        check.fits()
    }

    #[test]
    fn every_covered_digest_must_be_the_bodys() {
        let (whole, other) = ("\"content-digest\"", "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:");
        let both = format!("{SHA256}, {SHA512}");
        for value in [SHA256, SHA512, &both, &format!("md5=:AAAA:, {SHA256}, x=(a b)")] {
            assert!(fits(whole, value, BODY), "{value}");
            assert!(!fits(whole, value, b"{\"hello\": \"worle\"}") && !fits(whole, value, b""), "{value}");
        }
        let one_is_wrong = format!("{other}, {SHA512}");
        assert!(!fits(whole, &one_is_wrong, BODY));
        // What the signature does not cover says nothing.
        assert!(fits("\"content-digest\";key=\"sha-512\"", &one_is_wrong, BODY));
        assert!(!fits("\"content-digest\";key=\"sha-512\" \"content-digest\";key=\"sha-256\"", &one_is_wrong, BODY));
        assert!(fits("\"content-digest\";sf", &both, BODY) && fits("\"content-digest\";bs", &both, BODY));
    }

    #[test]
    fn what_cannot_be_checked_is_refused() {
        assert_eq!(covered("\"@method\"", Some("anything")), Ok(None));
        let whole = "\"content-digest\"";
        for value in
            [None, Some(""), Some("("), Some("md5=:AAAA:"), Some("sha-256=:AAAA:"), Some("sha-256"), Some("sha-512=a")]
        {
            assert!(covered(whole, value).is_err(), "{value:?}");
        }
        assert!(covered("\"content-digest\";key=\"md5\"", Some(SHA256)).is_err());
    }
}
