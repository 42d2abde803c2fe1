//! Facilitators: who checks token payments against the chain and moves the money.
//!
//! Cores hold [`Facilitators`] and ask; the control thread runs [`Service`], which owns the connections. An endpoint is a
//! server that speaks x402's facilitator interface, or the sandbox, which is part of the gateway and moves nothing.
//!
//! What an answer means is decided in [`crate::wire::x402::facilitator`]. Here it is decided what the absence of one
//! means: a call of which nothing went out is [`SettleOutcome::NotSent`], every other is unknown, never a failure.
//!
//! Source: x402 `specs/x402-specification-v2.md` §7.

mod breaker;
pub mod calls;
pub mod chain;
pub mod contradiction;
mod http;
pub mod sandbox;
pub mod service;
mod state;
mod supported;

pub use self::calls::{Facilitators, Kind, RAW_BYTES_MAX, SettleOutcome, Unavailable};
pub use self::contradiction::contradiction;
pub use self::http::{Http, UrlError};
pub use self::sandbox::Sandbox;
pub use self::service::Service;
pub use self::state::{Backend, Endpoint, Limits};
