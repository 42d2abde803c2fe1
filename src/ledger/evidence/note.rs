//! The evidence of a posting that somebody ordered: a void, a refund, a dispute.
//!
//! `version 4 ‖ field*`, fields as in [`super::Evidence`]: state, number, reference, reason, by, proof.

use super::{EvidenceError, fixed, present, push, take, text};

/// The version of this blob.
pub(super) const VERSION: u8 = 4;

/// Who ordered it, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// `voided`; of a refund `sent`, `done`, `failed`; of a dispute `open`, `upheld`, `rejected`.
    pub state: String,
    /// Which refund or dispute of the capture, from 1; 0 for a void.
    pub number: u8,
    /// What tells a refund from others of the same capture: a transaction, a transfer's number.
    pub reference: Option<String>,
    /// For whoever reads the books later; may be empty.
    pub reason: String,
    /// `operator`, `agent`.
    pub by: String,
    /// What an agent signed; none where the operator gave his word.
    pub proof: Option<Vec<u8>>,
}

impl Note {
    /// The blob.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        push(&mut out, Some(self.state.as_bytes()));
        push(&mut out, Some(&[self.number]));
        push(&mut out, self.reference.as_deref().map(str::as_bytes));
        push(&mut out, Some(self.reason.as_bytes()));
        push(&mut out, Some(self.by.as_bytes()));
        push(&mut out, self.proof.as_deref());
        out
    }

    /// Reads a blob.
    ///
    /// # Errors
    /// Names the version it does not know, or the first field that is not as written.
    pub fn decode(bytes: &[u8]) -> Result<Note, EvidenceError> {
        let (version, mut rest) = bytes.split_first().ok_or(EvidenceError::Field("version"))?;
        if *version != VERSION {
            return Err(EvidenceError::Version(*version));
        }
        let rest = &mut rest;
        let note = Note {
            state: text(rest, "state")?,
            number: fixed::<1>(present(rest, "number")?, "number")?[0],
            reference: take(rest, "reference")?
                .map(|bytes| String::from_utf8(bytes.to_vec()).map_err(|_| EvidenceError::Field("reference")))
                .transpose()?,
            reason: text(rest, "reason")?,
            by: text(rest, "by")?,
            proof: take(rest, "proof")?.map(<[u8]>::to_vec),
        };
        if rest.is_empty() { Ok(note) } else { Err(EvidenceError::Field("end")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn blobs_read_back_and_no_bytes_panic(
            (state, reason, by) in ("[a-z]{0,9}", ".{0,99}", "[a-z]{0,9}"),
            number: u8,
            reference in proptest::option::of(".{0,99}"),
            proof: Option<Vec<u8>>,
            tail in vec(any::<u8>(), 0..200),
        ) {
            let note = Note { state, number, reference, reason, by, proof };
            prop_assert_eq!(Note::decode(&note.encode()), Ok(note));
            let _ = Note::decode(&[&[VERSION][..], &tail].concat());
        }
    }
}
