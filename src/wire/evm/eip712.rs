//! Digests of typed data (EIP-712), for flat structs.

use sha3::{Digest, Keccak256};

use super::address::Address;
use super::u256::U256;

/// Keccak-256 (not SHA3-256) over the parts, one after the other.
pub fn keccak256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Keccak256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// The domain that a signature counts in: contract, chain, and the name and version that the contract gave itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// `USDC`
    pub name: String,
    /// `2`; absent in the domain of Permit2, whose type has no such member.
    pub version: Option<String>,
    /// `84532`
    pub chain_id: u64,
    /// The contract that checks the signature: the token, or Permit2.
    pub verifying_contract: Address,
}

impl Domain {
    /// The hash of the domain.
    pub fn separator(&self) -> [u8; 32] {
        let type_hash = keccak256(&[match self.version {
            Some(_) => b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)".as_slice(),
            None => b"EIP712Domain(string name,uint256 chainId,address verifyingContract)",
        }]);
        let name = keccak256(&[self.name.as_bytes()]);
        let version = self.version.as_ref().map(|version| keccak256(&[version.as_bytes()]));
        let (chain_id, contract) = (U256::from(self.chain_id).to_be_bytes(), word(&self.verifying_contract));
        keccak256(&[&type_hash, &name, version.as_ref().map_or(&[], |v| v.as_slice()), &chain_id, &contract])
    }

    /// What is signed for a struct with this hash.
    pub fn digest(&self, struct_hash: &[u8; 32]) -> [u8; 32] {
        keccak256(&[b"\x19\x01", &self.separator(), struct_hash])
    }
}

/// An address as ABI encoding has it: 12 zero bytes before it.
pub fn word(address: &Address) -> [u8; 32] {
    let mut word = [0; 32];
    word[12..].copy_from_slice(address.as_bytes());
    word
}

#[cfg(test)]
mod tests {
    use super::super::to_hex;
    use super::*;

    #[test]
    fn it_is_keccak_and_not_sha3() {
        let empty = "0xc5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470";
        assert_eq!(to_hex(&keccak256(&[])), empty);
        assert_eq!(keccak256(&[b"ab", b"c"]), keccak256(&[b"abc"]));
    }

    #[test]
    fn the_domain_of_usdc_on_base_is_the_one_of_the_contract() {
        let domain = Domain {
            name: "USD Coin".into(),
            version: Some("2".into()),
            chain_id: 8453,
            verifying_contract: Address::parse("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913").unwrap(),
        };
        // `DOMAIN_SEPARATOR()` of that contract.
        let separator = "0x02fa7265e7c5d81118673727957699e4d68f74cd74b7db77da710fe8a2c7834f";
        assert_eq!(to_hex(&domain.separator()), separator);
    }
}
