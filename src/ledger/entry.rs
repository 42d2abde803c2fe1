//! The rows of `entries`: what a posting says, its key and its number.

use std::fmt;

use crate::payment::key::PaymentKey;

/// The schemes that entries may name, as the wire spells them; what a pass gives without a payment has its name.
const SCHEMES: [&str; 6] = ["deferred", "exact", "upto", "batch-settlement", "crawl", "pass"];

/// The scheme of this name, `exact`, if there is one.
pub fn scheme(name: &str) -> Option<&'static str> {
    SCHEMES.into_iter().find(|known| *known == name)
}

/// Whether a capture of this scheme says that money has moved already: it cannot be taken back by a posting alone.
pub fn is_settled_at_once(scheme: &str) -> bool {
    matches!(scheme, "exact" | "upto")
}

/// The schemes of [`is_settled_at_once`], as SQL.
pub(super) const SETTLED_AT_ONCE: &str = "'exact', 'upto'";

/// Bits of an entry's number that hold the sequence; the slot is above them.
const SEQ_BITS: u32 = 48;

/// A row of `entries`, its columns in table order, without `hash` (the chain's own).
///
/// Times are Unix ms, amounts ledger units. Text is kept as it was given. `None` is SQL null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// `slot << 48 | seq`, see [`EntryNumber`].
    pub n: i64,
    /// Unique over the table.
    pub key: PostingKey,
    /// What the row does.
    pub kind: Kind,
    /// Posting time: max(last of this writer, process time).
    pub at_ms: i64,
    /// What the wall clock said.
    pub wall_ms: i64,
    /// Days since 1970-01-01 in the ledger's zone, never in a closed day.
    pub book_day: i64,
    /// Who owes.
    pub account: &'a str,
    /// The signature agent.
    pub agent: &'a str,
    /// The key's thumbprint.
    pub agent_key: Option<&'a str>,
    /// The route's name.
    pub route: &'a str,
    /// `deferred`.
    pub scheme: &'a str,
    /// `USD`.
    pub asset: &'a str,
    /// Charged, given back or paid in; never negative.
    pub amount: i64,
    /// The price that was offered, of the currency whatever was charged.
    pub list_amount: Option<i64>,
    /// Credit period, `20261124` or `202611`; of a balance [`super::day::BALANCE`], of a pass's request the entry that bought the
    /// pass, and of a pass its seconds.
    pub period: i64,
    /// SHA-256 of the price table.
    pub table_hash: Option<&'a [u8]>,
    /// The origin's status; of a refund or dispute what it is, see [`super::correction::State`]; of a top-up which way the
    /// money went, see [`super::top_up::Way`].
    pub status: Option<i64>,
    /// The capture that it is about.
    pub ref_n: Option<i64>,
    /// Request method.
    pub method: Option<&'a str>,
    /// What was bought; may be dropped by retention.
    pub target: Option<&'a str>,
    /// 16 random bytes; dropped with the target, so that its digest cannot be guessed.
    pub target_salt: Option<&'a [u8]>,
    /// SHA-256(salt ‖ target).
    pub target_digest: Option<&'a [u8]>,
    /// The versioned blob of [`super::evidence`]; may be dropped by retention.
    pub evidence: Option<&'a [u8]>,
    /// SHA-256(evidence).
    pub evidence_digest: Option<&'a [u8]>,
}

/// What a row does; the number is what the ledger keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Charges.
    Capture = 1,
    /// Reverses a capture, at most once.
    Void = 2,
    /// Money returned after settlement.
    Refund = 3,
    /// A settlement is about to be tried.
    Intent = 4,
    /// A settlement failed for good.
    Failed = 5,
    /// Paid and not delivered.
    Owed = 6,
    /// Paid in beforehand, or paid back.
    Topup = 7,
    /// Contested.
    Dispute = 8,
    /// Served once more without charge.
    Redelivered = 9,
    /// What is owed is not fetched any more: it is to be refunded.
    Lapsed = 10,
    /// Bought with the capture before it: what repeats it without charge, see [`super::passes`].
    Pass = 11,
}

impl Kind {
    /// Reads the ledger's number.
    pub fn from_number(number: i64) -> Option<Kind> {
        Some(match number {
            1 => Kind::Capture,
            2 => Kind::Void,
            3 => Kind::Refund,
            4 => Kind::Intent,
            5 => Kind::Failed,
            6 => Kind::Owed,
            7 => Kind::Topup,
            8 => Kind::Dispute,
            9 => Kind::Redelivered,
            10 => Kind::Lapsed,
            11 => Kind::Pass,
            _ => return None,
        })
    }

    /// Whether several postings of this kind may stand for one payment, told apart by a number.
    pub fn is_numbered(self) -> bool {
        matches!(self, Kind::Refund | Kind::Topup | Kind::Dispute)
    }

    /// `capture`, as listings show it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Capture => "capture",
            Kind::Void => "void",
            Kind::Refund => "refund",
            Kind::Intent => "intent",
            Kind::Failed => "failed",
            Kind::Owed => "owed",
            Kind::Topup => "topup",
            Kind::Dispute => "dispute",
            Kind::Redelivered => "redelivered",
            Kind::Lapsed => "lapsed",
            Kind::Pass => "pass",
        }
    }
}

/// What makes a posting happen at most once: kind 1 ‖ payment key 17 [‖ number 2, big-endian].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PostingKey {
    bytes: [u8; 20],
    len: u8,
}

impl PostingKey {
    /// The key of a posting; `number` counts for the kinds that carry one and is ignored for the others.
    pub fn new(kind: Kind, payment: &PaymentKey, number: u16) -> PostingKey {
        let mut bytes = [0; 20];
        bytes[0] = kind as u8;
        bytes[1..18].copy_from_slice(payment.as_bytes());
        if kind.is_numbered() {
            bytes[18..].copy_from_slice(&number.to_be_bytes());
        }
        PostingKey { bytes, len: if kind.is_numbered() { 20 } else { 18 } }
    }

    /// Reads the ledger's bytes; `None` for any other shape.
    pub fn from_bytes(bytes: &[u8]) -> Option<PostingKey> {
        let kind = Kind::from_number(i64::from(*bytes.first()?))?;
        let payment = PaymentKey::from_bytes(bytes.get(1..18)?)?;
        let number = match (kind.is_numbered(), bytes.len()) {
            (false, 18) => 0,
            (true, 20) => u16::from_be_bytes([bytes[18], bytes[19]]),
            _ => return None,
        };
        Some(PostingKey::new(kind, &payment, number))
    }

    /// As the ledger keeps it: 18 or 20 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The kind in the first byte.
    pub fn kind(&self) -> Kind {
        // Both constructors write a known kind.
        Kind::from_number(i64::from(self.bytes[0])).unwrap_or(Kind::Capture)
    }

    /// The number of a kind that carries one, else 0.
    pub fn number(&self) -> u16 {
        u16::from_be_bytes([self.bytes[18], self.bytes[19]])
    }

    /// The payment.
    pub fn payment(&self) -> PaymentKey {
        // Both constructors copy it from a payment key.
        PaymentKey::from_bytes(&self.bytes[1..18]).unwrap_or_else(|| PaymentKey::from_signature(&[]))
    }
}

impl fmt::Debug for PostingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// An entry's number taken apart: which writer wrote it, and its place in that writer's dense sequence from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryNumber {
    /// The writer, `0..=32767`.
    pub slot: i64,
    /// From 1, below 2⁴⁸.
    pub seq: i64,
}

impl EntryNumber {
    /// Takes `n` apart.
    pub fn from_n(n: i64) -> EntryNumber {
        EntryNumber { slot: n >> SEQ_BITS, seq: n & ((1 << SEQ_BITS) - 1) }
    }

    /// `slot << 48 | seq`.
    pub fn n(self) -> i64 {
        self.slot << SEQ_BITS | self.seq
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbered_kinds_carry_their_number_and_others_do_not() {
        let payment = PaymentKey::from_signature(&[b"a"]);
        let refund = PostingKey::new(Kind::Refund, &payment, 7);
        assert_eq!((refund.as_bytes().len(), &refund.as_bytes()[18..]), (20, &[0, 7][..]));
        let void = PostingKey::new(Kind::Void, &payment, 7);
        assert_eq!((void.as_bytes().len(), void.as_bytes()[0], void.payment()), (18, 2, payment));
    }

    #[test]
    fn both_lists_of_schemes_that_settle_at_once_are_the_same() {
        let found = SCHEMES.into_iter().filter(|scheme| is_settled_at_once(scheme)).map(|s| format!("'{s}'"));
        assert_eq!(found.collect::<Vec<_>>().join(", "), SETTLED_AT_ONCE);
    }

    #[test]
    fn numbers_keep_slot_and_sequence_apart() {
        let number = EntryNumber { slot: 1, seq: 2 };
        assert_eq!(number.n(), 281_474_976_710_658);
        assert_eq!(EntryNumber::from_n(number.n()), number);
    }

    proptest! {
        #[test]
        fn posting_keys_read_back(kind in 1_i64..=11, payment_kind in 1_u8..=7, id in any::<[u8; 16]>(), number: u16) {
            let kind = Kind::from_number(kind).unwrap();
            let mut payment = [payment_kind; 17];
            payment[1..].copy_from_slice(&id);
            let key = PostingKey::new(kind, &PaymentKey::from_bytes(&payment).unwrap(), number);
            prop_assert_eq!(PostingKey::from_bytes(key.as_bytes()), Some(key));
            prop_assert_eq!(key.kind(), kind);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            if let Some(key) = PostingKey::from_bytes(&bytes) {
                prop_assert_eq!(key.as_bytes(), &bytes[..]);
            }
        }
    }
}
