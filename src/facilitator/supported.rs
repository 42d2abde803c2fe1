//! What each facilitator can do, read from `/supported` in the background. Nobody waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::http::{Ask, Failed, Http};
use super::state::{Backend, Shared};
use crate::wire::x402::facilitator::{SupportedKind, supported};
use crate::wire::x402::network::Network;

/// The waits after failures grow up to so many times the first.
const RETRY_FACTOR_MAX: u32 = 60;

/// Keeps what is known about one facilitator up to date; ends only with its task. What was read stays when a later look
/// fails.
pub(super) async fn keep(shared: Arc<Shared>, i: usize) {
    let Some(facilitator) = shared.all.get(i) else { return };
    let Backend::Http(http) = &facilitator.endpoint.backend else { return };
    let limits = &shared.limits;
    let mut factor = 1;
    loop {
        let wait = match look(http, limits.verify, limits.connect).await {
            Ok(kinds) => {
                factor = 1;
                facilitator.learn(kinds);
                limits.refresh
            }
            Err((why, retry_after)) => {
                let name = &facilitator.endpoint.name;
                tracing::warn!(facilitator = %name, "what it supports could not be read: {why}");
                let wait = limits.retry * factor;
                factor = (factor * 2).min(RETRY_FACTOR_MAX);
                let asked = Duration::from_secs(retry_after.unwrap_or(0));
                wait.max(asked).min(limits.refresh)
            }
        };
        sleep(wait).await;
    }
}

async fn look(http: &Http, deadline: Duration, connect: Duration) -> Result<Vec<SupportedKind>, (String, Option<u64>)> {
    let deadline = Instant::now() + deadline;
    let ask = Ask { path: "/supported", body: None, repeatable: true, connect, deadline };
    let answer = http.ask(ask).await.map_err(|failed| match failed {
        Failed::NotSent(why) | Failed::Lost { why, .. } => (why, None),
    })?;
    if !answer.status.is_success() {
        return Err((format!("status {}", answer.status.as_u16()), answer.retry_after));
    }
    supported(&answer.body).map_err(|error| (error.to_string(), None))
}

/// Whether two names mean the same network: v1 writes `base`, v2 `eip155:8453`, and some facilitators mix them.
pub(super) fn same_network(a: &str, b: &str) -> bool {
    a == b || caip2(a) == caip2(b)
}

fn caip2(name: &str) -> String {
    Network::from_v1_name(name).map_or_else(|_| name.to_owned(), |network| network.to_string())
}
