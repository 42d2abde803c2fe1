//! A request's way, from socket to origin and back; modules in this order.

pub mod listener;
pub mod proxy_header;
pub mod socket;

pub mod connection;
pub mod io;
pub mod meter;
pub mod ticker;

pub mod stack;

pub mod agents;
pub mod forwarded;
pub mod framing;
pub mod rates;
pub mod target;

pub mod drain;
pub mod gate;
pub mod mcp;
pub mod observe;

pub mod answers;
pub mod exchange;
pub mod named;
pub mod prices;

pub mod account;
pub mod delivery;
pub mod documents;
pub mod forward;

pub mod body;
pub mod digest;
pub mod hold;
pub mod origin;
pub mod results;
pub mod upgrade;

pub mod trace;

pub mod core;
pub mod rescue;
pub mod sales;
