//! What end-to-end tests are made of: the real binary, a scripted origin, an agent with its directory, a raw client.
#![allow(dead_code, missing_docs, unused_imports)]

pub mod agent;
pub mod books;
pub mod chain;
pub mod client;
pub mod facilitator;
pub mod gateway;
pub mod keys;
pub mod mcp;
pub mod origin;
pub mod past;
pub mod permit;
pub mod postgres;
pub mod random;
pub mod skipped;
pub mod tls;
pub mod wallet;

pub use agent::Agent;
pub use books::Books;
pub use client::{Answer, exchange};
pub use gateway::Gateway;
pub use origin::{Origin, Seen};
pub use postgres::Postgres;
pub use random::Random;
pub use skipped::skipped;

/// A gateway before `origin`, with `/paid/*` at 0.01 USD for `agent`'s account `acme`, and free paths besides.
pub fn paid_site(origin: &Origin, agent: &Agent) -> Gateway {
    Gateway::start(&site_toml(origin, agent, ""))
}

/// The configuration of [`paid_site`] with `more` at its end.
pub fn site_toml(origin: &Origin, agent: &Agent, more: &str) -> String {
    format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
cores = 2
drain_seconds = 2
[origin]
url = "http://{origin}"
[deferred]
terms_url = "https://example.com/terms"
registration_url = "https://example.com/register"
[[accounts]]
name = "acme"
agents = ["{agent}"]
credit = "1000 USD"
[[routes]]
path = "/paid/*"
price = "0.01 USD"
{more}"#,
        origin = origin.addr,
        agent = agent.url,
    )
}
