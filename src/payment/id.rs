//! Sealed ids: stateless, time-ordered, bound to terms, amount and resource.
//!
//! 48 raw bytes, integers big-endian, 64 characters of base64url on the wire:
//!
//! ```text
//! time ms 6 | random 7 | key number 1 | template tag 2 | amount 8 | digest 12 | MAC 12
//! digest = SHA-256(template digest, method, authority, path, query, tool)   each with its 4-byte length, cut to 12
//! MAC    = HMAC-SHA-256(key, first 36 bytes)                                 cut to 12
//! ```

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::Mac;
use sha2::{Digest, Sha256};

use super::reason::Reason;
use super::secrets::Secrets;
use super::terms::{Term, Terms};
use crate::wire::amount::Units;
use std::sync::Arc;

/// Raw bytes of an id.
pub const ID_BYTES: usize = 48;
/// Characters of an id.
pub const ID_CHARS: usize = 64;
const MAC_AT: usize = 36;

/// What an id is bound to: the resource as the origin will see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource<'a> {
    /// `GET`; HEAD counts as GET.
    pub method: &'a str,
    /// `example.com`
    pub authority: &'a str,
    /// The normal form of the path.
    pub path: &'a str,
    /// The query as received; absent and empty are one.
    pub query: &'a str,
    /// What is called there, of an MCP server: `tool/add`; else empty.
    pub tool: &'a str,
}

impl Resource<'_> {
    /// The method as it is priced: HEAD counts as GET.
    pub fn priced_method(&self) -> &str {
        if self.method == "HEAD" { "GET" } else { self.method }
    }

    fn digest(&self, term: &Term) -> [u8; 12] {
        self.digest_under(&term.digest)
    }

    fn digest_under(&self, template_digest: &[u8; 32]) -> [u8; 12] {
        let mut hash = Sha256::new();
        let members = [
            &template_digest[..],
            self.priced_method().as_bytes(),
            self.authority.as_bytes(),
            self.path.as_bytes(),
            self.query.as_bytes(),
            self.tool.as_bytes(),
        ];
        for member in members {
            hash.update((member.len() as u32).to_be_bytes());
            hash.update(member);
        }
        first_12(&hash.finalize())
    }
}

/// A sealed id as its raw bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedId([u8; ID_BYTES]);

/// Why an id does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdError {
    /// Not ours, altered, or under a key or template that is gone.
    Unknown,
    /// Ours, but its ttl has passed.
    Expired,
    /// Ours, but made for another resource.
    OtherResource,
}

impl From<IdError> for Reason {
    fn from(error: IdError) -> Reason {
        match error {
            IdError::Unknown => Reason::UnknownOffer,
            IdError::Expired => Reason::OfferExpired,
            IdError::OtherResource => Reason::OtherResource,
        }
    }
}

/// What an id that holds commits to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The id.
    pub id: SealedId,
    /// Its terms.
    pub term: Arc<Term>,
    /// Its amount in ledger units.
    pub amount: Units,
}

impl SealedId {
    /// Seals an id. `random` must be fresh: 56 bits tell two offers of one millisecond apart.
    ///
    /// `None` when no key signs at this time.
    pub fn seal(
        secrets: &Secrets,
        now_ms: u64,
        random: [u8; 7],
        term: &Term,
        amount: Units,
        resource: &Resource<'_>,
    ) -> Option<SealedId> {
        let secret = secrets.signing(now_ms / 1000)?;
        let mut id = [0; ID_BYTES];
        id[..6].copy_from_slice(&now_ms.to_be_bytes()[2..]);
        id[6..13].copy_from_slice(&random);
        id[13] = secret.n;
        id[14..16].copy_from_slice(&term.tag());
        id[16..24].copy_from_slice(&amount.get().to_be_bytes());
        id[24..MAC_AT].copy_from_slice(&resource.digest(term));
        let mut mac = secret.mac();
        mac.update(&id[..MAC_AT]);
        id[MAC_AT..].copy_from_slice(&mac.finalize().into_bytes()[..12]);
        Some(SealedId(id))
    }

    /// Reads the 64 characters; strict, so that one id has one spelling.
    pub fn parse(text: &str) -> Option<SealedId> {
        if text.len() != ID_CHARS {
            return None;
        }
        let mut id = [0; ID_BYTES];
        // 48 is a multiple of 3: no padding and no spare bits, so no second spelling can decode.
        let n = URL_SAFE_NO_PAD.decode_slice(text, &mut id).ok()?;
        (n == ID_BYTES).then_some(SealedId(id))
    }

    /// The 64 characters.
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Takes the raw bytes as the ledger keeps them; proves nothing about the seal.
    pub fn from_bytes(bytes: [u8; ID_BYTES]) -> SealedId {
        SealedId(bytes)
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8; ID_BYTES] {
        &self.0
    }

    /// When it was made, Unix ms.
    pub fn time_ms(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes[2..].copy_from_slice(&self.0[..6]);
        u64::from_be_bytes(bytes)
    }

    /// The amount that it names, in ledger units; believed only where the MAC, or a signature over the id, holds.
    pub fn amount_units(&self) -> i64 {
        self.0[16..].first_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes))
    }

    /// Whether it was made for this resource under terms of this digest, as anybody can tell without the secret.
    pub fn is_for(&self, template_digest: &[u8; 32], resource: &Resource<'_>) -> bool {
        self.0[14..16] == template_digest[..2] && self.0[24..MAC_AT] == resource.digest_under(template_digest)
    }

    /// Opens the seal: MAC first, then time, then resource.
    ///
    /// # Errors
    /// [`IdError`]; nothing about an id is believed before its MAC holds.
    pub fn open(
        &self,
        secrets: &Secrets,
        terms: &Terms,
        now_ms: u64,
        resource: &Resource<'_>,
    ) -> Result<Quote, IdError> {
        let secret = secrets.numbered(self.0[13]).ok_or(IdError::Unknown)?;
        let mut expected = secret.mac();
        expected.update(&self.0[..MAC_AT]);
        expected.verify_truncated_left(&self.0[MAC_AT..]).map_err(|_| IdError::Unknown)?;
        let live = terms.tagged([self.0[14], self.0[15]]);
        let longest_ttl = live.iter().map(|t| t.template.ttl).max().ok_or(IdError::Unknown)?;
        let age_ms = now_ms.saturating_sub(self.time_ms());
        if age_ms > longest_ttl * 1000 {
            return Err(IdError::Expired);
        }
        let digest: [u8; 12] = first_12(&self.0[24..MAC_AT]);
        let term = live.iter().find(|t| resource.digest(t) == digest).ok_or(IdError::OtherResource)?;
        if age_ms > term.template.ttl * 1000 {
            return Err(IdError::Expired);
        }
        let mut amount = [0; 8];
        amount.copy_from_slice(&self.0[16..24]);
        let amount = Units::new(i64::from_be_bytes(amount)).ok_or(IdError::Unknown)?;
        Ok(Quote { id: *self, term: term.clone(), amount })
    }
}

fn first_12(bytes: &[u8]) -> [u8; 12] {
    let mut first = [0; 12];
    first.copy_from_slice(&bytes[..12]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::terms::Template;

    const NOW: u64 = 1_700_000_000_000;
    const PAGE: Resource<'static> =
        Resource { method: "GET", authority: "a.example", path: "/p", query: "q=1", tool: "" };

    fn term(network: &str) -> Arc<Term> {
        Term::new(Template {
            ttl: 300,
            class: "public".into(),
            scheme: "deferred".into(),
            network: network.into(),
            asset: "USD".into(),
            decimals: 2,
            pay_to: "merchant".into(),
            terms_url: String::new(),
        })
    }

    fn fixture() -> (Secrets, Terms, Arc<Term>) {
        let secrets = Secrets::parse(&Secrets::new_file([7; 32])).unwrap();
        let (mut terms, term) = (Terms::default(), term("tollgate:deferred"));
        terms.insert(term.clone());
        (secrets, terms, term)
    }

    fn seal(secrets: &Secrets, term: &Term) -> SealedId {
        SealedId::seal(secrets, NOW, [1, 2, 3, 4, 5, 6, 7], term, Units::new(10_000).unwrap(), &PAGE).unwrap()
    }

    #[test]
    fn an_id_opens_for_its_resource_within_its_ttl() {
        let (secrets, terms, term) = fixture();
        let id = SealedId::parse(&seal(&secrets, &term).to_text()).unwrap();
        let open = |now, resource: Resource<'_>| id.open(&secrets, &terms, now, &resource);
        let quote = open(NOW + 300_000, PAGE).unwrap();
        assert_eq!(quote.id.amount_units(), 10_000);
        assert!(quote.id.is_for(&term.digest, &PAGE) && !quote.id.is_for(&[0; 32], &PAGE));
        assert!(!quote.id.is_for(&term.digest, &Resource { path: "/p/", ..PAGE }));
        assert_eq!((quote.amount.get(), quote.term.digest, quote.id.time_ms()), (10_000, term.digest, NOW));
        assert!(open(NOW, Resource { method: "HEAD", ..PAGE }).is_ok());
        assert_eq!(open(NOW + 300_001, PAGE), Err(IdError::Expired));
        for other in [
            Resource { method: "POST", ..PAGE },
            Resource { authority: "b.example", ..PAGE },
            Resource { path: "/p/", ..PAGE },
            Resource { query: "", ..PAGE },
            Resource { tool: "tool/add", ..PAGE },
            // The same characters, split differently.
            Resource { path: "/pq", query: "=1", ..PAGE },
        ] {
            assert_eq!(open(NOW, other), Err(IdError::OtherResource), "{other:?}");
        }
        assert_eq!(id.open(&secrets, &Terms::default(), NOW, &PAGE), Err(IdError::Unknown));
    }

    #[test]
    fn no_altered_character_opens() {
        let (secrets, terms, term) = fixture();
        let text = seal(&secrets, &term).to_text();
        for i in 0..text.len() {
            for other in ['A', 'B', '-', '_', '='] {
                let mut altered: Vec<char> = text.chars().collect();
                if altered[i] == other {
                    continue;
                }
                altered[i] = other;
                let altered: String = altered.into_iter().collect();
                let opened = SealedId::parse(&altered).map(|id| id.open(&secrets, &terms, NOW, &PAGE));
                assert!(matches!(opened, None | Some(Err(IdError::Unknown))), "{i} {other} opened");
            }
        }
        for text in [&text[1..], &format!("{text}A"), &text.replace('-', "+"), ""] {
            assert!(text.len() == ID_CHARS || SealedId::parse(text).is_none());
        }
    }

    #[test]
    fn templates_with_one_tag_are_told_apart() {
        let (secrets, mut terms, first) = fixture();
        // A second template whose tag is the same: found by counting, 2 bytes are few.
        let second = (0..).map(|i| term(&format!("tollgate:{i}"))).find(|t| t.tag() == first.tag()).unwrap();
        terms.insert(second.clone());
        for wanted in [&first, &second] {
            let quote = seal(&secrets, wanted).open(&secrets, &terms, NOW, &PAGE).unwrap();
            assert_eq!(quote.term.digest, wanted.digest);
        }
    }

    #[test]
    fn the_layout_is_the_published_one() {
        let (secrets, _, term) = fixture();
        assert_eq!(
            seal(&secrets, &term).to_text(),
            include_str!("../../tests/wire/sealed_id.txt").lines().last().unwrap()
        );
    }
}
