//! Whether what a facilitator says it settled is what it was asked to.

use super::supported::same_network;
use crate::payment::upto;
use crate::wire::x402::facilitator::Settled;
use crate::wire::x402::requirements::Requirements;

/// What of a successful settlement contradicts `asked`, for people; `None` if nothing does. Members that are absent
/// contradict nothing, but for the amount of `upto`. `payer` is who signed, where that is known.
///
/// A success that contradicts is an unknown outcome: money may have moved, but not as asked.
pub fn contradiction(settled: &Settled, asked: &Requirements, payer: Option<&str>) -> Option<String> {
    let network = settled.network.as_deref().filter(|network| !network.is_empty());
    if let Some(network) = network.filter(|network| !same_network(network, asked.network.as_str())) {
        return Some(format!("it settled on {network:?} instead of {}", asked.network));
    }
    let amount = settled.amount.as_deref().filter(|amount| !amount.is_empty());
    if amount.is_none() && asked.scheme == upto::SCHEME {
        // Required there: one that looks at what was signed takes the maximum.
        return Some("it does not say how much of the maximum it settled".to_owned());
    }
    if let Some(amount) = amount.filter(|amount| amount.parse::<u128>() != Ok(asked.amount)) {
        return Some(format!("it settled {amount:?} instead of {}", asked.amount));
    }
    let said = settled.payer.as_deref().filter(|payer| !payer.is_empty());
    match (said, payer) {
        (Some(said), Some(payer)) if !asked.network.same_address(said, payer) => {
            Some(format!("it took the money of {said:?} instead of {payer}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::wire::x402::network::Network;

    #[test]
    fn what_differs_is_named() {
        let asked = Requirements {
            scheme: "exact".into(),
            network: Network::parse("eip155:84532").unwrap(),
            amount: 10_000,
            asset: "0x036CbD53842c5426634e7929541eC2318f3dCF7e".into(),
            pay_to: "0x209693Bc6afc0C5328bA36FaF03C514EF312287C".into(),
            max_timeout_seconds: 60,
            extra: Map::new(),
        };
        let payer = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
        let said = |members: serde_json::Value| {
            let settled = Settled::from_json(&members).unwrap();
            contradiction(&settled, &asked, Some(payer))
        };
        for fine in [
            json!({"success": true}),
            json!({"success": true, "network": "", "amount": "", "payer": ""}),
            json!({"success": true, "network": "base-sepolia", "amount": "10000", "payer": payer.to_lowercase()}),
            json!({"success": true, "network": "eip155:84532"}),
        ] {
            assert_eq!(said(fine), None);
        }
        for (wrong, word) in [
            (json!({"success": true, "network": "eip155:8453"}), "eip155:8453"),
            (json!({"success": true, "network": "base"}), "base"),
            (json!({"success": true, "amount": "9999"}), "9999"),
            (json!({"success": true, "amount": "10000.0"}), "10000.0"),
            (json!({"success": true, "payer": asked.pay_to}), "instead of 0xf39F"),
        ] {
            assert!(said(wrong).unwrap().contains(word), "{word}");
        }
    }
}
