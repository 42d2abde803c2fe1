//! The books: claims on payments not yet captured, and a durable, chained row for each payment that was.
//!
//! Pure: [`entry`], [`correction`], [`chain`], [`close`], [`outcomes`], [`witness`], [`evidence`], [`day`], [`rollup`], [`observation`], [`clock_rule`], [`limits`], [`open_accounts`]. The port is
//! [`store`], with [`settling`] for payments that move money at once. [`ledger_store`] implements it, made of `claims` (memory),
//! `queue`, `opening`, `writer` (one thread, one transaction a batch), `place` (is the file still there?) and [`mailbox`]
//! (one wake a core and batch), over [`sql`]: a file, or a server that several gateways share ([`postgres`]). [`read`],
//! [`report`], [`view`] and [`audit`] look at the books of a running gateway without its lock.
//! [`verify`] holds one entry against its evidence. [`closing`] ends book days, [`statements`] say what is owed for them; `witnessed` has
//! the chain say so of both. [`views`] reads for agents while the gateway runs.

pub mod archive;
pub mod audit;
pub mod backup;
mod batch;
mod books;
mod captured;
pub mod chain;
mod claims;
pub mod clock_rule;
pub mod close;
pub mod closing;
mod correcting;
pub mod correction;
mod credit;
pub mod day;
pub mod entry;
pub mod evidence;
pub mod faults;
mod file;
pub mod limits;
pub mod listing;
pub mod location;
pub mod mailbox;
pub mod observation;
pub mod observed;
pub mod open_accounts;
mod opening;
mod options;
pub mod outcomes;
pub mod owed;
pub mod passes;
mod place;

pub mod ledger_store;
mod port;
mod poster;
pub mod postgres;
mod queue;
pub mod read;
mod recovery;
pub mod report;
pub mod resolve;
pub mod restored;
pub mod rollup;
mod rows;
mod settlements;
pub mod settling;
mod shared;
pub mod sql;
pub mod standings;
pub mod statements;
mod steps;
pub mod store;
pub mod targets;
mod throttle;
pub mod top_up;
mod turns;
pub mod verify;
pub mod view;
pub mod views;
mod void_cap;
pub mod witness;
mod witnessed;
mod writer;
