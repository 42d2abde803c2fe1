//! Solana transactions, as far as the gateway reads them: the part that was signed.

/// Largest transaction that the network takes, bytes.
pub const TRANSACTION_BYTES_MAX: usize = 1232;

/// The message of a transaction, without the signatures before it: what every signer signed, so what names the payment
/// whoever adds a signature.
///
/// A transaction is a count of signatures (compact-u16), 64 bytes for each, and the message. The message begins with its
/// version (`0x80` + version; absent in the oldest form) and the count of signatures that it requires, which must be
/// the one before.
///
/// # Errors
/// [`SvmError`] for bytes that are no transaction.
pub fn message(transaction: &[u8]) -> Result<&[u8], SvmError> {
    if transaction.len() > TRANSACTION_BYTES_MAX {
        return Err(SvmError::TooLong);
    }
    let (count, rest) = compact_u16(transaction).ok_or(SvmError::Count)?;
    let (_, message) = rest.split_at_checked(usize::from(count) * 64).ok_or(SvmError::Short)?;
    let required = match message {
        [version, required, ..] if version & 0x80 != 0 => required,
        [required, ..] => required,
        [] => return Err(SvmError::Short),
    };
    if count == 0 || u16::from(*required) != count {
        return Err(SvmError::Count);
    }
    // To its last byte: what a lenient reader ignores would make another payment of the same transaction.
    if read_message(message) == Some(&[][..]) { Ok(message) } else { Err(SvmError::Message) }
}

/// What follows a message: header, accounts, blockhash, instructions and, in version 0, look-up tables.
fn read_message(bytes: &[u8]) -> Option<&[u8]> {
    let (version, rest) = bytes.split_first()?;
    let (versioned, rest) = match version {
        0x80 => (true, rest),
        version if version & 0x80 != 0 => return None,
        _ => (false, bytes),
    };
    let rest = items(rest.get(3..)?, |rest| rest.get(32..))?.get(32..)?;
    let rest = items(rest, |rest| counted(counted(rest.get(1..)?)?))?;
    if versioned { items(rest, |rest| counted(counted(rest.get(32..)?)?)) } else { Some(rest) }
}

/// A count, and so many items.
fn items<'b>(bytes: &'b [u8], item: impl Fn(&'b [u8]) -> Option<&'b [u8]>) -> Option<&'b [u8]> {
    let (count, mut rest) = compact_u16(bytes)?;
    for _ in 0..count {
        rest = item(rest)?;
    }
    Some(rest)
}

/// A count, and so many bytes.
fn counted(bytes: &[u8]) -> Option<&[u8]> {
    let (count, rest) = compact_u16(bytes)?;
    rest.get(usize::from(count)..)
}

/// Solana's compact-u16: 7 bits a byte, the lowest first, in the fewest bytes.
fn compact_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let mut value = 0_u32;
    for (i, byte) in bytes.iter().take(3).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            // A last byte of zero adds nothing: the same number has a shorter spelling.
            let shortest = i == 0 || *byte != 0;
            return if shortest { Some((u16::try_from(value).ok()?, &bytes[i + 1..])) } else { None };
        }
    }
    None
}

/// Why bytes are no transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SvmError {
    /// Longer than [`TRANSACTION_BYTES_MAX`].
    #[error("the transaction is longer than {TRANSACTION_BYTES_MAX} bytes")]
    TooLong,
    /// Ends inside the signatures or before the message.
    #[error("the transaction ends too soon")]
    Short,
    /// The message is malformed, or something stands after it.
    #[error("the transaction's message is malformed, or something stands after it")]
    Message,
    /// The count of signatures is malformed, zero or not what the message requires.
    #[error("the count of signatures is wrong")]
    Count,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(count: u8, message: &[u8]) -> Vec<u8> {
        [&[count][..], &vec![7; 64 * usize::from(count)], message].concat()
    }

    /// One account, a blockhash, one instruction with an account and two bytes.
    fn body(required: u8) -> Vec<u8> {
        [&[required, 0, 1][..], &[1], &[8; 32], &[9; 32], &[1, 0, 1, 0, 2, 5, 6]].concat()
    }

    #[test]
    fn the_message_is_what_follows_the_signatures_to_the_last_byte() {
        let legacy = body(1);
        assert_eq!(message(&transaction(1, &legacy)), Ok(&legacy[..]));
        let tables = [&[1][..], &[7; 32], &[1, 0], &[0]].concat();
        let versioned = [&[0x80][..], &body(2), &tables].concat();
        assert_eq!(message(&transaction(2, &versioned)), Ok(&versioned[..]));
        for (count, whole) in [(1, legacy), (2, versioned)] {
            assert_eq!(message(&transaction(count, &[&whole[..], &[0]].concat())), Err(SvmError::Message));
            for cut in 1..whole.len() {
                assert!(message(&transaction(count, &whole[..cut])).is_err(), "{cut} bytes");
            }
        }
        assert_eq!(message(&transaction(1, &[&[0x81][..], &body(1)].concat())), Err(SvmError::Message));
    }

    #[test]
    fn everything_else_is_refused() {
        let good = transaction(2, &[0x80, 2, 0, 1]);
        for cut in 0..=129 {
            assert!(message(&good[..cut]).is_err(), "{cut} bytes");
        }
        assert_eq!(message(&good[..129]), Err(SvmError::Short));
        assert_eq!(message(&transaction(0, &[0x80, 0])), Err(SvmError::Count));
        assert_eq!(message(&transaction(1, &[0x80, 2])), Err(SvmError::Count));
        assert_eq!(message(&[&[0x82, 0x00][..], &good[1..]].concat()), Err(SvmError::Count), "overlong count");
        assert_eq!(message(&[0xff, 0xff, 0xff, 0xff]), Err(SvmError::Count));
        assert_eq!(message(&[0xff, 0xff, 0x03]), Err(SvmError::Short));
        assert_eq!(message(&[0xff, 0xff, 0x07]), Err(SvmError::Count), "above 16 bits");
        assert_eq!(message(&transaction(1, &[1; 1300])), Err(SvmError::TooLong));
    }
}
