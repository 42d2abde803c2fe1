//! The evidence blob of a capture: what the agent signed, so that an operator can prove the debt without this gateway.
//!
//! `version 1 ‖ field*`, each field `length 4 ‖ bytes` (FFFFFFFF: absent), integers big-endian, in the order of [`Evidence`].

mod note;
mod wallet;

pub use note::Note;
pub(super) use wallet::bytes_max as wallet_bytes_max;
pub use wallet::{BodyDigest, WalletEvidence};

/// The version that this code writes.
const VERSION: u8 = 1;
const WALLET_VERSION: u8 = wallet::VERSION;
const WALLET_BODY_VERSION: u8 = wallet::BODY_VERSION;
const NOTE_VERSION: u8 = note::VERSION;
const ABSENT: u32 = u32::MAX;
/// Longest blob that the ledger takes.
pub const EVIDENCE_BYTES_MAX: usize = 64 * 1024;

/// Fields of the blob, and the most bytes of those whose size the request does not decide: a signature of any algorithm
/// that we verify (RSA of 4096 bits: 512) and a SHA-256 thumbprint (43) stay below what they are given here.
const FIELDS: usize = 10;
const OTHERS_BYTES_MAX: usize = 48 + 32 + 512 + 64 + 32 + 8 + 2;

/// The most bytes that the blob of a request may have.
pub(super) fn bytes_max(method: &str, target: &str, base: &str) -> usize {
    1 + FIELDS * 4 + OTHERS_BYTES_MAX + method.len() + target.len() + base.len()
}

/// What proves one payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The 48 raw bytes of the sealed offer id, where the payment had one.
    pub sealed_id: Option<[u8; 48]>,
    /// Digest of the template that the id was sealed under, where there is an id.
    pub template_digest: Option<[u8; 32]>,
    /// The signature base as it was verified (RFC 9421 section 2.5).
    pub signature_base: Vec<u8>,
    /// The raw signature.
    pub signature: Vec<u8>,
    /// RFC 7638 thumbprint of the key, base64url.
    pub thumbprint: String,
    /// SHA-256 of the directory's body; zeros for a pinned key.
    pub directory_digest: [u8; 32],
    /// When it was verified, Unix ms.
    pub verified_ms: u64,
    /// Request method.
    pub method: String,
    /// Scheme, authority, path and query.
    pub target: String,
    /// The origin's status.
    pub origin_status: u16,
}

/// What an entry's blob holds, whichever version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A commitment that an agent signed.
    Signed(Evidence),
    /// A transfer that a wallet signed and a facilitator settled.
    Settled(WalletEvidence),
    /// Somebody's word.
    Noted(Note),
}

impl Proof {
    /// Reads a blob of any version.
    ///
    /// # Errors
    /// Names the version it does not know, or the first field that is not as written.
    pub fn decode(bytes: &[u8]) -> Result<Proof, EvidenceError> {
        match bytes.first() {
            Some(&(WALLET_VERSION | WALLET_BODY_VERSION)) => WalletEvidence::decode(bytes).map(Proof::Settled),
            Some(&NOTE_VERSION) => Note::decode(bytes).map(Proof::Noted),
            _ => Evidence::decode(bytes).map(Proof::Signed),
        }
    }
}

/// The digest of the template that a payment was sold under, from a blob of any version that has one: id and digest stand first in
/// all of them. `None` where there is none, or none can be read.
pub fn template_digest(bytes: &[u8]) -> Option<[u8; 32]> {
    let (version, mut rest) = bytes.split_first()?;
    if !matches!(*version, VERSION | WALLET_VERSION | WALLET_BODY_VERSION) {
        return None;
    }
    take(&mut rest, "sealed_id").ok()?;
    take(&mut rest, "template_digest").ok()??.try_into().ok()
}

impl Evidence {
    /// The blob.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.signature_base.len() + self.signature.len() + self.target.len());
        out.push(VERSION);
        push(&mut out, self.sealed_id.as_ref().map(|b| &b[..]));
        push(&mut out, self.template_digest.as_ref().map(|b| &b[..]));
        push(&mut out, Some(&self.signature_base));
        push(&mut out, Some(&self.signature));
        push(&mut out, Some(self.thumbprint.as_bytes()));
        push(&mut out, Some(&self.directory_digest));
        push(&mut out, Some(&self.verified_ms.to_be_bytes()));
        push(&mut out, Some(self.method.as_bytes()));
        push(&mut out, Some(self.target.as_bytes()));
        push(&mut out, Some(&self.origin_status.to_be_bytes()));
        out
    }

    /// Reads a blob.
    ///
    /// # Errors
    /// Names the version it does not know, or the first field that is not as written.
    pub fn decode(bytes: &[u8]) -> Result<Evidence, EvidenceError> {
        let (version, mut rest) = bytes.split_first().ok_or(EvidenceError::Field("version"))?;
        if *version != VERSION {
            return Err(EvidenceError::Version(*version));
        }
        let rest = &mut rest;
        let evidence = Evidence {
            sealed_id: take(rest, "sealed_id")?.map(|b| fixed(b, "sealed_id")).transpose()?,
            template_digest: take(rest, "template_digest")?.map(|b| fixed(b, "template_digest")).transpose()?,
            signature_base: present(rest, "signature_base")?.to_vec(),
            signature: present(rest, "signature")?.to_vec(),
            thumbprint: text(rest, "thumbprint")?,
            directory_digest: fixed(present(rest, "directory_digest")?, "directory_digest")?,
            verified_ms: u64::from_be_bytes(fixed(present(rest, "verified_ms")?, "verified_ms")?),
            method: text(rest, "method")?,
            target: text(rest, "target")?,
            origin_status: u16::from_be_bytes(fixed(present(rest, "origin_status")?, "origin_status")?),
        };
        if rest.is_empty() { Ok(evidence) } else { Err(EvidenceError::Field("end")) }
    }
}

fn push(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        // The ledger refuses blobs over 64 KiB, so a length never reaches the mark of absence.
        Some(bytes) => {
            out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            out.extend_from_slice(bytes);
        }
        None => out.extend_from_slice(&ABSENT.to_be_bytes()),
    }
}

fn take<'a>(rest: &mut &'a [u8], name: &'static str) -> Result<Option<&'a [u8]>, EvidenceError> {
    let (length, after) = rest.split_first_chunk::<4>().ok_or(EvidenceError::Field(name))?;
    let length = u32::from_be_bytes(*length);
    if length == ABSENT {
        *rest = after;
        return Ok(None);
    }
    let (field, after) = after.split_at_checked(length as usize).ok_or(EvidenceError::Field(name))?;
    *rest = after;
    Ok(Some(field))
}

fn present<'a>(rest: &mut &'a [u8], name: &'static str) -> Result<&'a [u8], EvidenceError> {
    take(rest, name)?.ok_or(EvidenceError::Field(name))
}

fn text(rest: &mut &[u8], name: &'static str) -> Result<String, EvidenceError> {
    String::from_utf8(present(rest, name)?.to_vec()).map_err(|_| EvidenceError::Field(name))
}

fn fixed<const N: usize>(bytes: &[u8], name: &'static str) -> Result<[u8; N], EvidenceError> {
    bytes.try_into().map_err(|_| EvidenceError::Field(name))
}

/// Why a blob cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// Written by a later version.
    #[error("evidence of version {0}, this version reads those up to {NOTE_VERSION}")]
    Version(u8),
    /// Cut off or malformed.
    #[error("evidence is malformed at `{0}`")]
    Field(&'static str),
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::{template_digest as template_digest_of, *};

    #[test]
    fn a_cut_or_longer_blob_is_refused_with_the_field() {
        let evidence = Evidence {
            sealed_id: None,
            template_digest: None,
            signature_base: b"base".to_vec(),
            signature: vec![7; 64],
            thumbprint: "tp".into(),
            directory_digest: [0; 32],
            verified_ms: 5,
            method: "GET".into(),
            target: "https://shop.example/".into(),
            origin_status: 200,
        };
        let bytes = evidence.encode();
        assert_eq!(Evidence::decode(&bytes[..bytes.len() - 1]), Err(EvidenceError::Field("origin_status")));
        assert_eq!(Evidence::decode(&[&bytes[..], &[0]].concat()), Err(EvidenceError::Field("end")));
        assert_eq!(Evidence::decode(&[2]), Err(EvidenceError::Version(2)));
    }

    proptest! {
        #[test]
        fn blobs_read_back(
            id in option::of(any::<[u8; 32]>()),
            template_digest in option::of(any::<[u8; 32]>()),
            signature_base in vec(any::<u8>(), 0..300),
            signature in vec(any::<u8>(), 0..100),
            (thumbprint, method, target) in (".{0,43}", "[A-Z]{1,8}", ".{0,200}"),
            directory_digest: [u8; 32],
            (verified_ms, origin_status) in any::<(u64, u16)>(),
        ) {
            let sealed_id = id.map(|b| { let mut id = [9; 48]; id[..32].copy_from_slice(&b); id });
            let evidence = Evidence {
                sealed_id, template_digest, signature_base, signature, thumbprint, directory_digest, verified_ms,
                method, target, origin_status,
            };
            prop_assert_eq!(template_digest_of(&evidence.encode()), evidence.template_digest);
            prop_assert_eq!(Evidence::decode(&evidence.encode()), Ok(evidence));
        }

        #[test]
        fn no_bytes_panic(tail in vec(any::<u8>(), 0..200)) {
            let _ = Evidence::decode(&tail);
            let _ = template_digest_of(&[&[VERSION][..], &tail].concat());
            let _ = Evidence::decode(&[&[VERSION][..], &tail].concat());
        }
    }
}
