//! TLS by rustls with ring: towards others (`client`), and for those who come in (`server`).

pub mod client;
pub mod server;
