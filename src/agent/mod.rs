//! The paying client: reads offers, stays within a budget, signs, and gets the page.
//!
//! | file | what it is |
//! |---|---|
//! | [`offer`] | a 402 → [`Offer`]s; pure |
//! | [`wallet`] | who pays, how much at most, and the signed fields; pure |
//! | [`layer`] | a `tower` layer that pays for any HTTP client |
//! | [`http`] | a small HTTP client, for those who have none |
//! | [`directory`] | serves the agent's public keys |

pub mod directory;
pub mod http;
pub mod layer;
pub mod offer;
pub mod wallet;

pub use layer::{PayError, PayLayer};
pub use offer::Offer;
pub use wallet::{Agent, Budget};
