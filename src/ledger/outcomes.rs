//! Outcomes as a batch carries them: `n_base 8 ‖ (n − n_base 4 ‖ code 1 ‖ ms 4 ‖ bytes 7)*`, big-endian.
//!
//! Numbers are not negative. In the batches of closes, of steps of statements and of notes of archives the column has the
//! witnesses of these rows instead ([`super::witness`]), which begin with a negative number: such a batch tells of no capture.

use super::{
    store::{Delivery, Outcome},
    witness,
};

/// Bytes of one record.
const RECORD: usize = 16;
/// Largest byte count that a record holds.
const BYTES_MAX: u64 = (1 << 56) - 1;

/// One record read back. Whether the charge was reversed is told by the void posting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The capture's number.
    pub n: i64,
    /// How the delivery ended.
    pub delivery: Delivery,
    /// From capture to end.
    pub ms: u32,
    /// Body bytes handed on.
    pub bytes: u64,
}

/// Packs outcomes for a batch's row; `None` when there are none. Those too far apart for one row (2³² numbers) are left
/// out and returned for the next.
pub fn encode(outcomes: &[Outcome]) -> (Option<Vec<u8>>, Vec<Outcome>) {
    let Some(n_base) = outcomes.iter().map(|o| o.n).min() else { return (None, Vec::new()) };
    let mut bytes = Vec::with_capacity(8 + outcomes.len() * RECORD);
    let mut left = Vec::new();
    bytes.extend_from_slice(&n_base.to_be_bytes());
    for outcome in outcomes {
        // The base is the smallest number, and numbers are not negative.
        let Ok(distance) = u32::try_from(outcome.n.wrapping_sub(n_base)) else {
            left.push(*outcome);
            continue;
        };
        bytes.extend_from_slice(&distance.to_be_bytes());
        bytes.push(outcome.delivery as u8);
        bytes.extend_from_slice(&outcome.ms.to_be_bytes());
        bytes.extend_from_slice(&outcome.bytes.min(BYTES_MAX).to_be_bytes()[1..]);
    }
    (Some(bytes), left)
}

/// Reads a batch's outcomes, none of one that has witnesses; `None` for any other shape.
pub fn decode(bytes: &[u8]) -> Option<Vec<Record>> {
    if witness::are_in(bytes) {
        return witness::decode(bytes).map(|_| Vec::new());
    }
    let (base, records) = bytes.split_first_chunk::<8>()?;
    let n_base = i64::from_be_bytes(*base);
    if records.is_empty() || records.len() % RECORD != 0 {
        return None;
    }
    records.chunks_exact(RECORD).map(|record| read(n_base, record)).collect()
}

fn read(n_base: i64, record: &[u8]) -> Option<Record> {
    let (distance, rest) = record.split_first_chunk::<4>()?;
    let (code, rest) = rest.split_first()?;
    let (ms, rest) = rest.split_first_chunk::<4>()?;
    let mut bytes = [0; 8];
    bytes[1..].copy_from_slice(rest.get(..7)?);
    Some(Record {
        n: n_base.checked_add(i64::from(u32::from_be_bytes(*distance)))?,
        delivery: delivery(*code)?,
        ms: u32::from_be_bytes(*ms),
        bytes: u64::from_be_bytes(bytes),
    })
}

fn delivery(code: u8) -> Option<Delivery> {
    Some(match code {
        1 => Delivery::Complete,
        2 => Delivery::ClientLeft,
        3 => Delivery::ClientStalled,
        4 => Delivery::OriginCut,
        5 => Delivery::NotSent,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_too_far_away_waits_for_the_next_batch() {
        let outcome = |n| Outcome { n, delivery: Delivery::Complete, void: false, ms: 1, bytes: 2 };
        let (bytes, left) = encode(&[outcome(5), outcome(5 + (1 << 32)), outcome(4 + (1 << 32))]);
        assert_eq!(decode(&bytes.unwrap()).unwrap().iter().map(|r| r.n).collect::<Vec<_>>(), [5, 4 + (1 << 32)]);
        assert_eq!(left, [outcome(5 + (1 << 32))]);
        assert_eq!(encode(&[]), (None, Vec::new()));
    }

    proptest! {
        #[test]
        fn records_read_back(
            base in 1_i64 << 48..1 << 62,
            rows in proptest::collection::vec((0..=u32::MAX, 1_u8..=5, any::<u32>(), 0..=BYTES_MAX), 1..20),
        ) {
            let outcomes: Vec<Outcome> = rows
                .iter()
                .map(|&(d, code, ms, bytes)| {
                    Outcome { n: base + i64::from(d), delivery: delivery(code).unwrap(), void: false, ms, bytes }
                })
                .collect();
            let (bytes, left) = encode(&outcomes);
            prop_assert!(left.is_empty());
            let read = decode(&bytes.unwrap()).unwrap();
            let back: Vec<Outcome> = read
                .iter()
                .map(|r| Outcome { n: r.n, delivery: r.delivery, void: false, ms: r.ms, bytes: r.bytes })
                .collect();
            prop_assert_eq!(back, outcomes);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(&bytes);
        }
    }
}
