//! Agents and people: who pays, what browsers see, what single agents get.

mod support;

#[path = "agents/account.rs"]
mod account;
#[path = "agents/charge.rs"]
mod charge;
#[path = "agents/key_sets.rs"]
mod key_sets;
#[path = "agents/open.rs"]
mod open;
#[path = "agents/page.rs"]
mod page;
#[path = "agents/passes.rs"]
mod passes;
#[path = "agents/rates.rs"]
mod rates;
#[path = "agents/rules.rs"]
mod rules;
