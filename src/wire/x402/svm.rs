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
    Ok(message)
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

    #[test]
    fn the_message_is_what_follows_the_signatures() {
        let versioned = [0x80, 2, 0, 1, 9, 9];
        assert_eq!(message(&transaction(2, &versioned)), Ok(&versioned[..]));
        let legacy = [1, 0, 1, 9];
        assert_eq!(message(&transaction(1, &legacy)), Ok(&legacy[..]));
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
