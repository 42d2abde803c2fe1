//! `PermitWitnessTransferFrom` of Uniswap's Permit2, with the witness of x402's proxies: it binds the transfer to its
//! receiver. Source: x402 `specs/schemes/exact/scheme_exact_evm.md`, `specs/schemes/upto/scheme_upto_evm.md`.

use super::address::Address;
use super::eip712::{Domain, keccak256, word};
use super::u256::U256;

/// The Permit2 contract, the same on every chain: `0x000000000022D473030F116dDEE9F6B43aC78BA3`.
pub const PERMIT2: Address = Address::new([
    0x00, 0x00, 0x00, 0x00, 0x00, 0x22, 0xd4, 0x73, 0x03, 0x0f, 0x11, 0x6d, 0xde, 0xe9, 0xf6, 0xb4, 0x3a, 0xc7, 0x8b,
    0xa3,
]);
/// The spender of `exact`: x402ExactPermit2Proxy, `0x402085c248EeA27D92E8b30b2C58ed07f9E20001`.
pub const EXACT_PROXY: Address = Address::new([
    0x40, 0x20, 0x85, 0xc2, 0x48, 0xee, 0xa2, 0x7d, 0x92, 0xe8, 0xb3, 0x0b, 0x2c, 0x58, 0xed, 0x07, 0xf9, 0xe2, 0x00,
    0x01,
]);
/// The spender of `upto`: x402UptoPermit2Proxy, `0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002`.
pub const UPTO_PROXY: Address = Address::new([
    0x40, 0x20, 0xa4, 0xf3, 0xb7, 0xb9, 0x0c, 0xca, 0x42, 0x3b, 0x9f, 0xab, 0xcc, 0x0c, 0xe5, 0x7c, 0x6c, 0x24, 0x00,
    0x02,
]);

/// What is authorised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermitAuthorization {
    /// Who pays; not part of the digest, the signature says it.
    pub from: Address,
    /// The token.
    pub token: Address,
    /// How much, in the token's smallest unit.
    pub amount: U256,
    /// The contract that may move it: [`EXACT_PROXY`] or [`UPTO_PROXY`].
    pub spender: Address,
    /// Chosen by the payer, spent once.
    pub nonce: U256,
    /// Unix seconds; counts up to it.
    pub deadline: U256,
    /// What the proxy holds the spender to.
    pub witness: Witness,
}

/// What the proxy holds the spender to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Who is paid.
    pub to: Address,
    /// Who may settle; only in `upto`.
    pub facilitator: Option<Address>,
    /// Unix seconds; counts from it on.
    pub valid_after: U256,
}

impl PermitAuthorization {
    /// What the payer signs on chain `chain_id`.
    pub fn digest(&self, chain_id: u64) -> [u8; 32] {
        let domain = Domain { name: "Permit2".into(), version: None, chain_id, verifying_contract: PERMIT2 };
        let witness_type: &[u8] = match self.witness.facilitator {
            None => b"Witness(address to,uint256 validAfter)",
            Some(_) => b"Witness(address to,address facilitator,uint256 validAfter)",
        };
        let facilitator = self.witness.facilitator.as_ref().map(word);
        let witness = keccak256(&[
            &keccak256(&[witness_type]),
            &word(&self.witness.to),
            facilitator.as_ref().map_or(&[], |word| word.as_slice()),
            &self.witness.valid_after.to_be_bytes(),
        ]);
        let permitted_type: &[u8] = b"TokenPermissions(address token,uint256 amount)";
        let permitted = keccak256(&[&keccak256(&[permitted_type]), &word(&self.token), &self.amount.to_be_bytes()]);
        let permit_type: &[u8] = b"PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,Witness witness)";
        domain.digest(&keccak256(&[
            &keccak256(&[permit_type, permitted_type, witness_type]),
            &permitted,
            &word(&self.spender),
            &self.nonce.to_be_bytes(),
            &self.deadline.to_be_bytes(),
            &witness,
        ]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contracts_are_the_published_ones() {
        assert_eq!(PERMIT2.to_string(), "0x000000000022D473030F116dDEE9F6B43aC78BA3");
        assert_eq!(EXACT_PROXY, Address::parse("0x402085c248EeA27D92E8b30b2C58ed07f9E20001").unwrap());
        assert_eq!(UPTO_PROXY, Address::parse("0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002").unwrap());
    }
}
