//! What was agreed with single accounts: licences, subscriptions, balances.

mod support;

#[path = "accounts/balance.rs"]
mod balance;
#[path = "accounts/example.rs"]
mod example;
#[path = "accounts/licence.rs"]
mod licence;
#[path = "accounts/subscription.rs"]
mod subscription;
