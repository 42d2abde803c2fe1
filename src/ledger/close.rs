//! A close: the heads of all chains at the moment when days were closed, and what the gateway's key signs of it.
//!
//! ```text
//! heads     = (slot 8 ‖ seq 8 ‖ batch_seq 8 ‖ head 32)*              a record for each writer, in order of slots
//! signed    = "tollgate close 1\n" ‖ ledger_id 16 ‖ from_day 8 ‖ until 8 ‖ at_ms 8 ‖ heads
//! signature = key's RFC 7638 thumbprint 32 ‖ Ed25519 signature 64    null where the gateway has no key of its own
//! ```
//!
//! Integers are big-endian, two's complement; days are whole days since 1970-01-01 in the ledger's zone. `until` is the first
//! day that is still open. The heads cover every entry that the close is about, and so every line of its statements.
//!
//! What the close covers can't change any more, and neither can the close: the transaction that writes the row appends its digest,
//! signature included, to the chain of the writer that closes ([`super::witness`]). Whoever takes the row away later, changes it
//! or opens its days again leaves a chain that says otherwise.

use super::chain::Hash;

const TAG: &[u8] = b"tollgate close 1\n";
const RECORD_BYTES: usize = 56;
const SIGNATURE_BYTES: usize = 96;

/// A row of `closes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The first day that it covers.
    pub from_day: i64,
    /// The first day that it left open.
    pub until: i64,
    /// When, Unix ms.
    pub at_ms: i64,
    /// Where each writer's chain stood.
    pub heads: Vec<HeadRecord>,
    /// By the gateway's key, where it has one.
    pub signature: Option<CloseSignature>,
}

/// Where a writer's chain stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadRecord {
    /// The writer.
    pub slot: i64,
    /// Its entries so far.
    pub seq: i64,
    /// Its batches so far.
    pub batch_seq: i64,
    /// The last batch's head, or the genesis.
    pub head: Hash,
}

/// Who signed, and the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseSignature {
    /// SHA-256 of the key (RFC 7638), raw.
    pub thumbprint: [u8; 32],
    /// Ed25519.
    pub signature: [u8; 64],
}

impl Close {
    /// What the key signs.
    pub fn signed_bytes(&self, ledger_id: &[u8; 16]) -> Vec<u8> {
        let mut bytes = [TAG, ledger_id].concat();
        for number in [self.from_day, self.until, self.at_ms] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend(self.encode_heads());
        bytes
    }

    /// The column `heads`.
    pub fn encode_heads(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.heads.len() * RECORD_BYTES);
        for record in &self.heads {
            for number in [record.slot, record.seq, record.batch_seq] {
                bytes.extend_from_slice(&number.to_be_bytes());
            }
            bytes.extend_from_slice(&record.head);
        }
        bytes
    }

    /// What its statements print: the head of a ledger's one writer; of several the SHA-256 of `heads`.
    pub fn head(&self) -> Hash {
        match &self.heads[..] {
            [one] => one.head,
            _ => super::chain::evidence_digest(&self.encode_heads()),
        }
    }
}

impl HeadRecord {
    /// Reads the column `heads`; `None` for any other shape.
    pub fn decode_all(bytes: &[u8]) -> Option<Vec<HeadRecord>> {
        let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
        if !rest.is_empty() {
            return None;
        }
        let number = |record: &[u8; RECORD_BYTES], i: usize| {
            record[i * 8..].first_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes))
        };
        let record = |record: &[u8; RECORD_BYTES]| HeadRecord {
            slot: number(record, 0),
            seq: number(record, 1),
            batch_seq: number(record, 2),
            head: record.last_chunk().copied().unwrap_or_default(),
        };
        Some(records.iter().map(record).collect())
    }
}

impl CloseSignature {
    /// The column `signature`.
    pub fn encode(&self) -> [u8; SIGNATURE_BYTES] {
        let mut bytes = [0; SIGNATURE_BYTES];
        bytes[..32].copy_from_slice(&self.thumbprint);
        bytes[32..].copy_from_slice(&self.signature);
        bytes
    }

    /// Reads the column; `None` for any other length.
    pub fn decode(bytes: &[u8]) -> Option<CloseSignature> {
        let bytes: &[u8; SIGNATURE_BYTES] = bytes.try_into().ok()?;
        let (thumbprint, signature) = (*bytes.first_chunk()?, *bytes.last_chunk()?);
        Some(CloseSignature { thumbprint, signature })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_signed_bytes_are_the_documented_ones() {
        let heads = vec![HeadRecord { slot: 1, seq: 7, batch_seq: 5, head: [0xaa; 32] }];
        let close = Close { from_day: 20_758, until: 20_788, at_ms: 1_796_083_200_000, heads, signature: None };
        let hex: String = close.signed_bytes(&[0x11; 16]).iter().map(|byte| format!("{byte:02x}")).collect();
        let ledger_id = "11".repeat(16);
        let head = "aa".repeat(32);
        let expected = format!(
            "746f6c6c6761746520636c6f736520310a{ledger_id}00000000000051160000000000005134000001a22ee6b000\
             000000000000000100000000000000070000000000000005{head}"
        );
        assert_eq!(hex, expected);
        assert_eq!(close.head(), [0xaa; 32]);
    }

    proptest! {
        #[test]
        fn columns_read_back_and_no_bytes_panic(
            numbers in proptest::collection::vec(any::<(i64, i64, i64, [u8; 32])>(), 0..4),
            thumbprint: [u8; 32],
            tail in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let record = |(slot, seq, batch_seq, head)| HeadRecord { slot, seq, batch_seq, head };
            let heads: Vec<HeadRecord> = numbers.into_iter().map(record).collect();
            let close = Close { from_day: 0, until: 1, at_ms: 2, heads: heads.clone(), signature: None };
            prop_assert_eq!(HeadRecord::decode_all(&close.encode_heads()), Some(heads));
            let signature = CloseSignature { thumbprint, signature: [7; 64] };
            prop_assert_eq!(CloseSignature::decode(&signature.encode()), Some(signature));
            let _ = (HeadRecord::decode_all(&tail), CloseSignature::decode(&tail));
        }
    }
}
