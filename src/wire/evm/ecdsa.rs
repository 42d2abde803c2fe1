//! Signatures of Ethereum accounts: `r ‖ s ‖ v`, 65 bytes.

use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};

use super::address::Address;
use super::eip712::keccak256;

pub use k256::ecdsa::SigningKey;

/// Bytes of a signature by an account's key; contract wallets have longer ones.
pub const SIGNATURE_BYTES: usize = 65;

/// Who signed `digest`; `None` when the signature has another length or is none. `v` is 27 or 28, or 0 or 1 as some
/// wallets write it. A high `s`, the second spelling that every signature has, is refused, as USDC and OpenZeppelin do.
pub fn recover(digest: &[u8; 32], signature: &[u8]) -> Option<Address> {
    let (&v, rs) = signature.split_last()?;
    if signature.len() != SIGNATURE_BYTES {
        return None;
    }
    let id = RecoveryId::from_byte(match v {
        27 | 28 => v - 27,
        0 | 1 => v,
        _ => return None,
    })?;
    let signature = Signature::from_slice(rs).ok()?;
    if signature.normalize_s() != signature {
        return None;
    }
    VerifyingKey::recover_from_prehash(digest, &signature, id).ok().map(|key| address_of(&key))
}

/// Signs `digest`: low `s`, `v` 27 or 28, the same bytes each time (RFC 6979).
pub fn sign(key: &SigningKey, digest: &[u8; 32]) -> [u8; 65] {
    let (signature, id) = key.sign_prehash_recoverable(digest);
    let mut bytes = [27 + u8::from(id.is_y_odd()); 65];
    bytes[..64].copy_from_slice(&signature.to_bytes());
    bytes
}

/// The address of a public key: the last 20 bytes of the hash of its two coordinates.
pub fn address_of(key: &VerifyingKey) -> Address {
    let point = key.to_sec1_point(false);
    // An uncompressed point is a byte 4 and the two coordinates.
    let hash = keccak256(&[&point.as_bytes()[1..]]);
    let mut address = [0; 20];
    address.copy_from_slice(&hash[12..]);
    Address::new(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        // The first account of the well-known development mnemonic ("test test … junk").
        let hex = super::super::from_hex("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80").unwrap();
        SigningKey::from_slice(&hex).unwrap()
    }

    #[test]
    fn a_signature_names_its_key() {
        let address = address_of(key().verifying_key());
        assert_eq!(address.to_string(), "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
        for n in 0..64_u8 {
            let digest = [n; 32];
            let mut signature = sign(&key(), &digest);
            assert_eq!(recover(&digest, &signature), Some(address));
            signature[64] -= 27;
            assert_eq!(recover(&digest, &signature), Some(address), "v 0 or 1");
            signature[64] ^= 1;
            assert_ne!(recover(&digest, &signature), Some(address));
            for v in [2, 3, 26, 29, 30, 255] {
                signature[64] = v;
                assert_eq!(recover(&digest, &signature), None, "v {v}");
            }
        }
    }

    #[test]
    fn the_second_spelling_of_a_signature_is_refused() {
        // n of secp256k1.
        let order = "0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
        let order = super::super::from_hex(order).unwrap();
        let mut signature = sign(&key(), &[7; 32]);
        let mut borrow = 0;
        for i in (0..32).rev() {
            let value = i32::from(order[i]) - i32::from(signature[32 + i]) - borrow;
            borrow = i32::from(value < 0);
            signature[32 + i] = value.rem_euclid(256) as u8;
        }
        signature[64] = 27 + 28 - signature[64];
        assert_eq!(recover(&[7; 32], &signature), None);
        for wrong in [[0; 65], [0xff; 65]] {
            assert_eq!(recover(&[7; 32], &wrong), None);
        }
        for length in [0, 1, 64, 66] {
            assert_eq!(recover(&[7; 32], &vec![27; length]), None);
        }
    }
}
