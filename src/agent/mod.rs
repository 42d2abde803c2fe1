//! The paying client: reads offers, stays within a budget, signs, and gets the page.
//!
//! | file | what it is |
//! |---|---|
//! | [`offer`] | a 402 → [`Offer`]s; pure |
//! | [`budget`] | how much one request may cost; pure |
//! | [`means`] | what a payer pays with: an agent's key, a wallet, or both; pure |
//! | [`signer`] | an agent that commits to offers of `deferred`; pure |
//! | [`wallet`] | a key that signs token transfers for `exact`; pure |
//! | [`layer`] | a `tower` layer that pays for any HTTP client |
//! | [`http`] | a small HTTP client, for those who have none |
//! | [`directory`] | serves the agent's public keys |

pub mod budget;
pub mod directory;
pub mod http;
pub mod layer;
pub mod means;
pub mod offer;
pub mod signer;
pub mod wallet;

pub use budget::Budget;
pub use layer::{PayError, PayLayer};
pub use means::Means;
pub use offer::Offer;
pub use signer::Agent;
pub use wallet::Wallet;
