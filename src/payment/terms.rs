//! Offer templates: the terms that an id commits to besides its amount and resource.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// The class of offers that are for everybody.
pub const PUBLIC: &str = "public";

/// The layout of digests that this version makes.
pub const VERSION: u32 = 1;

/// The terms of an offer. Every member stands in the offer, so that anybody can recompute [`Template::digest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// How long an offer stands, seconds.
    pub ttl: u64,
    /// Whom the price is for: `public`, or `claimed:GPTBot`.
    pub class: String,
    /// `deferred`.
    pub scheme: String,
    /// `tollgate:deferred`.
    pub network: String,
    /// `USD` or `USD6`.
    pub asset: String,
    /// Decimals of the asset's smallest unit.
    pub decimals: u32,
    /// `merchant`.
    pub pay_to: String,
    /// Empty when there is none.
    pub terms_url: String,
}

impl Template {
    /// SHA-256 over version, ttl, class, scheme, network, asset, decimals, payTo, termsUrl, in this order; integers as
    /// decimal text, each member with its length before it (4 bytes, big-endian).
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.to_bytes()).into()
    }

    /// The digest's input: also what the ledger keeps in `terms`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (version, ttl, decimals) = (VERSION.to_string(), self.ttl.to_string(), self.decimals.to_string());
        let members = [
            &version,
            &ttl,
            &self.class,
            &self.scheme,
            &self.network,
            &self.asset,
            &decimals,
            &self.pay_to,
            &self.terms_url,
        ];
        let mut bytes = Vec::with_capacity(128);
        for member in members {
            bytes.extend_from_slice(&(member.len() as u32).to_be_bytes());
            bytes.extend_from_slice(member.as_bytes());
        }
        bytes
    }

    /// Reads [`Template::to_bytes`]; `None` for another version or damaged bytes.
    pub fn from_bytes(all: &[u8]) -> Option<Template> {
        let mut bytes = all;
        let mut next = || {
            let (length, rest) = bytes.split_at_checked(4)?;
            let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
            let (member, rest) = rest.split_at_checked(length)?;
            bytes = rest;
            String::from_utf8(member.to_vec()).ok()
        };
        if next()? != VERSION.to_string() {
            return None;
        }
        let template = Template {
            ttl: next()?.parse().ok()?,
            class: next()?,
            scheme: next()?,
            network: next()?,
            asset: next()?,
            decimals: next()?.parse().ok()?,
            pay_to: next()?,
            terms_url: next()?,
        };
        // Integers have one spelling, or one template would have several digests.
        (bytes.is_empty() && template.to_bytes() == all).then_some(template)
    }
}

/// A template with its digest, made once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The terms.
    pub template: Template,
    /// Their digest.
    pub digest: [u8; 32],
}

impl Term {
    /// Computes the digest.
    pub fn new(template: Template) -> Arc<Term> {
        let digest = template.digest();
        Arc::new(Term { template, digest })
    }

    /// First two bytes of the digest: what an id names its template by. Several live templates may share a tag.
    pub fn tag(&self) -> [u8; 2] {
        [self.digest[0], self.digest[1]]
    }
}

/// The templates whose offers may still be paid.
#[derive(Debug, Default)]
pub struct Terms {
    by_tag: HashMap<[u8; 2], Vec<Arc<Term>>>,
    /// What v1 was quoted by earlier configurations, and until when that is good, Unix ms.
    quotes: Vec<(Arc<Term>, u64)>,
}

impl Terms {
    /// Adds a live template; one that is already there is kept.
    pub fn insert(&mut self, term: Arc<Term>) {
        let list = self.by_tag.entry(term.tag()).or_default();
        if !list.iter().any(|t| t.digest == term.digest) {
            list.push(term);
        }
    }

    /// Adds what v1 was quoted by an earlier configuration: good until then, for its payments have no time of their own.
    pub fn insert_quote(&mut self, term: Arc<Term>, until_ms: u64) {
        self.quotes.push((term, until_ms));
    }

    /// Those that are good now.
    pub fn quotes(&self, now_ms: u64) -> impl Iterator<Item = &Arc<Term>> {
        self.quotes.iter().filter(move |(_, until_ms)| now_ms <= *until_ms).map(|(term, _)| term)
    }

    /// The live templates with this tag.
    pub fn tagged(&self, tag: [u8; 2]) -> &[Arc<Term>] {
        self.by_tag.get(&tag).map_or(&[], Vec::as_slice)
    }

    /// Whether some live template has this scheme and network.
    pub fn accepts(&self, scheme: &str, network: &str) -> bool {
        self.iter().any(|t| t.template.scheme == scheme && t.template.network == network)
    }

    /// All live templates.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Term>> {
        self.by_tag.values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_end() {
        let template = Template::from_bytes(&quote().to_bytes()).unwrap();
        let mut terms = Terms::default();
        terms.insert_quote(Term::new(template), 1000);
        assert_eq!([999, 1000, 1001].map(|now_ms| terms.quotes(now_ms).count()), [1, 1, 0]);
        assert_eq!((terms.iter().count(), terms.accepts("exact", "eip155:84532")), (0, false));
    }

    fn quote() -> Template {
        Template {
            ttl: 300,
            class: "v1/9f86d081884c7d65/10000".into(),
            scheme: "exact".into(),
            network: "eip155:84532".into(),
            asset: "0x036CbD53842c5426634e7929541eC2318f3dCF7e".into(),
            decimals: 6,
            pay_to: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".into(),
            terms_url: String::new(),
        }
    }

    #[test]
    fn integers_have_one_spelling() {
        let with = |ttl: &str, decimals: &str| {
            let members = ["1", ttl, "public", "deferred", "tollgate:deferred", "USD6", decimals, "merchant", ""];
            let bytes: Vec<u8> =
                members.iter().flat_map(|m| [&(m.len() as u32).to_be_bytes()[..], m.as_bytes()].concat()).collect();
            Template::from_bytes(&bytes)
        };
        assert_eq!(with("300", "6").map(|t| (t.ttl, t.decimals)), Some((300, 6)));
        assert_eq!(with("0", "0").map(|t| (t.ttl, t.decimals)), Some((0, 0)));
        for (ttl, decimals) in [("000", "6"), ("0300", "6"), ("+300", "6"), ("300", "06"), ("300", "+6"), ("", "6")] {
            assert_eq!(with(ttl, decimals), None, "{ttl:?} {decimals:?}");
        }
    }
}
