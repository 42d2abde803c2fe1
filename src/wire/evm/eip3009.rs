//! `TransferWithAuthorization` of EIP-3009: a payer's signature that lets anybody move the payer's tokens once.

use super::address::Address;
use super::eip712::{Domain, keccak256, word};
use super::u256::U256;

const TYPE: &[u8] = b"TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)";

/// What is authorised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// Who pays.
    pub from: Address,
    /// Who is paid.
    pub to: Address,
    /// How much, in the token's smallest unit.
    pub value: U256,
    /// Unix seconds; counts when the block's time is above it.
    pub valid_after: U256,
    /// Unix seconds; counts when the block's time is below it.
    pub valid_before: U256,
    /// Chosen by the payer, spent once.
    pub nonce: [u8; 32],
}

impl Authorization {
    /// The hash of the struct.
    pub fn struct_hash(&self) -> [u8; 32] {
        keccak256(&[
            &keccak256(&[TYPE]),
            &word(&self.from),
            &word(&self.to),
            &self.value.to_be_bytes(),
            &self.valid_after.to_be_bytes(),
            &self.valid_before.to_be_bytes(),
            &self.nonce,
        ])
    }

    /// What the payer signs for the token of `domain`.
    pub fn digest(&self, domain: &Domain) -> [u8; 32] {
        domain.digest(&self.struct_hash())
    }
}
