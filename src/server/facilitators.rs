//! `[facilitators.NAME]` and `[exact]` → the facilitators' two sides.

use std::fs;

use http::HeaderValue;

use super::StartError;
use crate::clock::Clock;
use crate::config::{Config, Facilitator};
use crate::facilitator::chain::Node;
use crate::facilitator::{Endpoint, Facilitators, Limits, Service, UrlError};
use crate::tls;
use crate::wire::amount::Asset;

/// The cores' side, and the part that the control thread runs.
pub(super) fn start(config: &Config, clock: &Clock) -> Result<(Facilitators, Service), StartError> {
    let endpoints = if config.exact.sandbox {
        tracing::warn!("SANDBOX: token payments are settled on paper; no money moves");
        vec![Endpoint::sandbox(clock.clone())]
    } else {
        config.facilitators.iter().map(endpoint).collect::<Result<_, _>>()?
    };
    let limits = Limits {
        verify: config.exact.verify,
        settle: config.exact.settle,
        concurrency: config.exact.concurrency,
        ..Limits::default()
    };
    Ok(Facilitators::new(endpoints, limits))
}

/// The nodes that are asked what became of payments.
pub(super) fn nodes(config: &Config) -> Result<Vec<(Asset, Node)>, StartError> {
    let node = |(asset, url): &(Asset, String)| {
        let failed = |e: UrlError| StartError::Facilitator { name: "rpc_url".into(), reason: e.to_string() };
        Ok((asset.clone(), Node::new(url).map_err(failed)?))
    };
    config.exact.nodes.iter().map(node).collect()
}

fn endpoint(facilitator: &Facilitator) -> Result<Endpoint, StartError> {
    let failed = |reason: String| StartError::Facilitator { name: facilitator.name.clone(), reason };
    let authorization = match &facilitator.auth_file {
        None => None,
        Some(path) => {
            let of_file = |what: String| failed(format!("auth_file {}: {what}", path.display()));
            let text = fs::read_to_string(path).map_err(|e| of_file(format!("cannot be read: {e}")))?;
            let mut value = HeaderValue::from_str(text.trim()).map_err(|_| {
                of_file("holds more than one line of visible characters; write the value of Authorization".to_owned())
            })?;
            value.set_sensitive(true);
            Some(value)
        }
    };
    let roots = |path| tls::client::http(Some(path)).map_err(|e| failed(format!("ca_file {e}")));
    let tls = facilitator.ca_file.as_deref().map(roots).transpose()?;
    let endpoint = Endpoint::http(facilitator.name.clone(), &facilitator.url, authorization, tls);
    let mut endpoint = endpoint.map_err(|e| failed(e.to_string()))?;
    endpoint.idempotent = facilitator.idempotent;
    Ok(endpoint)
}
