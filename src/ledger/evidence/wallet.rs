//! The evidence of a payment that a facilitator settled: what the wallet signed and what the facilitator said.
//!
//! `version 2 ‖ field*`, fields as in [`super::Evidence`]; version 3 has the digest of the request's body at its end.

use super::{EvidenceError, fixed, present, push, take, text};

/// The version of requests without a body.
pub(super) const VERSION: u8 = 2;
/// The version of those that have one.
pub(super) const BODY_VERSION: u8 = 3;
/// Longest part of a facilitator's answer that is kept.
pub const ANSWER_BYTES_MAX: usize = 4096;
const FIELDS: usize = 11;
/// Longest receipt that is kept, base64 of JSON that holds little more than a facilitator's answer.
const RECEIPT_BYTES_MAX: usize = 2 * ANSWER_BYTES_MAX;
const OTHERS_BYTES_MAX: usize = 48 + 32 + 2048 + 8 + 2 + 32;

/// The most bytes that the blob of a request may have.
pub(in crate::ledger) fn bytes_max(method: &str, target: &str, request: &str) -> usize {
    let answers = 2 * ANSWER_BYTES_MAX + RECEIPT_BYTES_MAX;
    1 + FIELDS * 4 + OTHERS_BYTES_MAX + answers + method.len() + target.len() + request.len()
}

/// What is known of a request's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyDigest {
    /// There was none.
    #[default]
    Empty,
    /// There was one, and it had not ended.
    Unknown,
    /// All of it.
    Sha256([u8; 32]),
}

/// What proves one settled payment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalletEvidence {
    /// The 48 raw bytes of the sealed offer id, where the payment had one.
    pub sealed_id: Option<[u8; 48]>,
    /// Digest of the template that the id was sealed under, where there is an id.
    pub template_digest: Option<[u8; 32]>,
    /// The body of `/verify` and `/settle`: payload and requirements, JSON.
    pub request: String,
    /// The start of the answer of `/verify`.
    pub verified: Vec<u8>,
    /// The start of the answer of `/settle`; empty in an intent.
    pub settled: Vec<u8>,
    /// The payment response as the client gets it, base64; empty in an intent.
    pub receipt: String,
    /// When it was verified, Unix ms.
    pub verified_ms: u64,
    /// Request method.
    pub method: String,
    /// Scheme, authority, path and query.
    pub target: String,
    /// The origin's status; 0 where it was not asked yet.
    pub origin_status: u16,
    /// The request's body: the same one is served again where the answer is owed.
    pub body: BodyDigest,
}

impl WalletEvidence {
    /// The blob. What is longer than the bounds of this module is cut.
    pub fn encode(&self) -> Vec<u8> {
        let cut = |bytes: &'_ [u8], most: usize| bytes[..bytes.len().min(most)].to_vec();
        let mut out = Vec::with_capacity(512 + self.request.len() + self.target.len());
        out.push(if self.body == BodyDigest::Empty { VERSION } else { BODY_VERSION });
        push(&mut out, self.sealed_id.as_ref().map(|b| &b[..]));
        push(&mut out, self.template_digest.as_ref().map(|b| &b[..]));
        push(&mut out, Some(self.request.as_bytes()));
        push(&mut out, Some(&cut(&self.verified, ANSWER_BYTES_MAX)));
        push(&mut out, Some(&cut(&self.settled, ANSWER_BYTES_MAX)));
        // A cut receipt could not be read: none is better.
        let receipt = if self.receipt.len() > RECEIPT_BYTES_MAX { "" } else { &self.receipt };
        push(&mut out, Some(receipt.as_bytes()));
        push(&mut out, Some(&self.verified_ms.to_be_bytes()));
        push(&mut out, Some(self.method.as_bytes()));
        push(&mut out, Some(self.target.as_bytes()));
        push(&mut out, Some(&self.origin_status.to_be_bytes()));
        match &self.body {
            BodyDigest::Empty => {}
            BodyDigest::Unknown => push(&mut out, None),
            BodyDigest::Sha256(digest) => push(&mut out, Some(digest)),
        }
        out
    }

    /// Reads a blob.
    ///
    /// # Errors
    /// Names the version it does not know, or the first field that is not as written.
    pub fn decode(bytes: &[u8]) -> Result<WalletEvidence, EvidenceError> {
        let (version, mut rest) = bytes.split_first().ok_or(EvidenceError::Field("version"))?;
        if ![VERSION, BODY_VERSION].contains(version) {
            return Err(EvidenceError::Version(*version));
        }
        let rest = &mut rest;
        let evidence = WalletEvidence {
            sealed_id: take(rest, "sealed_id")?.map(|b| fixed(b, "sealed_id")).transpose()?,
            template_digest: take(rest, "template_digest")?.map(|b| fixed(b, "template_digest")).transpose()?,
            request: text(rest, "request")?,
            verified: present(rest, "verified")?.to_vec(),
            settled: present(rest, "settled")?.to_vec(),
            receipt: text(rest, "receipt")?,
            verified_ms: u64::from_be_bytes(fixed(present(rest, "verified_ms")?, "verified_ms")?),
            method: text(rest, "method")?,
            target: text(rest, "target")?,
            origin_status: u16::from_be_bytes(fixed(present(rest, "origin_status")?, "origin_status")?),
            body: match *version {
                VERSION => BodyDigest::Empty,
                _ => match take(rest, "body")? {
                    None => BodyDigest::Unknown,
                    Some(digest) => BodyDigest::Sha256(fixed(digest, "body")?),
                },
            },
        };
        if rest.is_empty() { Ok(evidence) } else { Err(EvidenceError::Field("end")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::ledger::evidence::EVIDENCE_BYTES_MAX;

    proptest! {
        #[test]
        fn blobs_read_back_and_no_bytes_panic(
            id: Option<[u8; 32]>,
            (request, method, target, receipt) in (".{0,200}", "[A-Z]{1,8}", ".{0,200}", "[a-z]{0,99}"),
            (verified, settled) in (vec(any::<u8>(), 0..300), vec(any::<u8>(), 0..300)),
            (verified_ms, origin_status, body) in any::<(u64, u16, Option<Option<[u8; 32]>>)>(),
        ) {
            let evidence = WalletEvidence {
                sealed_id: id.map(|_| [9; 48]), template_digest: id, request, verified, settled, receipt, verified_ms,
                method, target, origin_status,
                body: body.map_or(BodyDigest::Empty, |known| known.map_or(BodyDigest::Unknown, BodyDigest::Sha256)),
            };
            let bytes = evidence.encode();
            prop_assert_eq!(WalletEvidence::decode(&bytes), Ok(evidence));
            for cut in 0..bytes.len() {
                prop_assert!(WalletEvidence::decode(&bytes[..cut]).is_err());
            }
        }
    }

    #[test]
    fn answers_are_cut_and_what_fits_is_taken() {
        let (method, target) = ("M".repeat(100), "t".repeat(20_000));
        let most = EVIDENCE_BYTES_MAX - bytes_max(&method, &target, "");
        let evidence = WalletEvidence {
            sealed_id: Some([1; 48]),
            template_digest: Some([2; 32]),
            request: "r".repeat(most),
            verified: vec![3; 1 << 20],
            settled: vec![4; 1 << 20],
            receipt: "r".repeat(RECEIPT_BYTES_MAX),
            method,
            target,
            body: BodyDigest::Sha256([5; 32]),
            ..WalletEvidence::default()
        };
        assert!(evidence.encode().len() <= EVIDENCE_BYTES_MAX);
        let too_long = WalletEvidence { receipt: "r".repeat(RECEIPT_BYTES_MAX + 1), ..evidence };
        assert_eq!(WalletEvidence::decode(&too_long.encode()).unwrap().receipt, "");
    }
}
