//! Who signs: the keys of agents, from their directories or pinned, always looked up by (agent, key).
//!
//! Cores read [`Keys`] and ask the control thread for what is not there; only the control thread fetches, by [`Service`].

pub mod error;
pub mod fetch;
pub mod freshness;
pub mod guard;
pub mod keys;
pub mod publish;
pub mod resolve;
pub mod service;

pub use error::{Error, FetchError};
pub use guard::Policy;
pub use keys::{AgentKey, Keys, Lookup};
pub use publish::response_parts;
pub use service::Service;
