//! `[exact]`, `[facilitators.NAME]`.

use std::{path::Path, sync::Arc};

use super::urls;
use crate::{
    config::{
        Exact, Facilitator, Route, Scheme, Settle, Then,
        read::Section,
        walk::{nearest, quote},
    },
    payment::{
        identifier::Mode,
        token::{DECIMALS_MAX, Token, Transfer},
    },
    wire::{
        amount::Currency,
        evm::address::Address,
        x402::{
            assets::{self, ASSETS, KnownAsset},
            network::{self, Network},
        },
    },
};

/// Longest name of a token.
const NAME_BYTES_MAX: usize = 100;

pub(super) fn exact(root: &Section<'_>, section: &Section<'_>) -> Option<Exact> {
    let sections = section.list("assets");
    let sandbox = section.flag("sandbox");
    let tokens: Vec<Option<Arc<Token>>> = sections.iter().map(|section| token(section).map(Arc::new)).collect();
    let mut seen: Vec<(&Section<'_>, &Token)> = Vec::new();
    for (section, token) in sections.iter().zip(&tokens) {
        let Some(token) = token else { continue };
        let same = |(_, other): &&(&Section<'_>, &Token)| other.book == token.book;
        if let Some((other, _)) = seen.iter().find(same) {
            let message = "the token is listed twice";
            root.layers.clash(&section.at("network"), &other.at("network"), message, None);
        }
        if sandbox && token.network.is_testnet() != Some(true) {
            let by = root.layers.said_by("exact.sandbox");
            let help = format!("take a test network such as `eip155:84532` (Base Sepolia), or leave `{by}` out");
            let message = format!("`{by}` settles on paper, and `{}` is no known test network", token.network);
            section.complain("network", message, Some(help));
        }
        seen.push((section, token));
    }
    let node = |(section, token): (&Section<'_>, &Option<Arc<Token>>)| {
        let url = urls::page(section, "rpc_url")??;
        Some((token.as_ref()?.book.clone(), url))
    };
    Some(Exact {
        nodes: sections.iter().zip(&tokens).filter_map(node).collect(),
        assets: tokens.into_iter().collect::<Option<_>>()?,
        sandbox,
        v1: section.flag("v1"),
        verify: section.seconds("verify_seconds"),
        settle: section.seconds("settle_seconds"),
        answer: section.seconds("answer_seconds"),
        concurrency: section.number("concurrency"),
        body_bytes: section.number("body_bytes"),
        identifier: match section.text("payment_identifier") {
            Some("off") => Mode::Off,
            Some("required") => Mode::Required,
            _ => Mode::Optional,
        },
        answers_bytes: section.number("answers_bytes"),
    })
}

fn token(section: &Section<'_>) -> Option<Token> {
    let network = section.text("network").and_then(|text| {
        let network = Network::parse(text).or_else(|_| Network::from_v1_name(text)).ok();
        let known = network.filter(|network| network.evm_chain_id().is_some() || network.is_svm());
        if known.is_none() {
            let message = format!("expected a network such as `eip155:8453` or `base`, found `{}`", quote(text));
            let help = match nearest(text, network::v1_names()) {
                Some(near) => format!("did you mean `\"{near}\"`?"),
                None => "`eip155:` and a chain's number (CAIP-2), or `solana:` and its genesis".to_owned(),
            };
            section.complain("network", message, Some(help));
        }
        known
    })?;
    let asset = section.text("asset")?;
    let known = known(&network, asset);
    let is_address =
        if network.is_svm() { is_base58(asset) } else { asset.starts_with("0x") && Address::parse(asset).is_ok() };
    if known.is_none() && !is_address {
        let names: Vec<&str> = ASSETS.iter().filter(|a| a.network == network.as_str()).map(|a| a.symbol).collect();
        let help = match &names[..] {
            [] => "no token of this network is known by name: give its address, and `decimals`".to_owned(),
            _ => format!("known there: {}; any other by its address", names.join(", ")),
        };
        section.complain("asset", format!("`{}` is no token on {network}", quote(asset)), Some(help));
        return None;
    }
    let pay_to = section.text("pay_to").filter(|text| {
        let wrong = |message: String, help: Option<String>| {
            section.complain("pay_to", message, help);
            false
        };
        let found = quote(text);
        if network.is_svm() {
            return is_base58(text) || wrong(format!("expected an address on {network}, found `{found}`"), None);
        }
        // Money goes there: a slip of a letter must not pass.
        match Address::parse(text) {
            Err(_) => wrong(format!("expected an address on {network}, found `{found}`"), None),
            Ok(address) if address.as_bytes().iter().all(|byte| *byte == 0) => {
                wrong("nobody has the address of zeros".to_owned(), None)
            }
            Ok(_) if is_mixed(text) && !is_checked(text) => {
                let help = "one of its letters or digits is wrong (EIP-55); copy it again from the wallet".to_owned();
                wrong(format!("`{found}` fails its own checksum"), Some(help))
            }
            Ok(_) => true,
        }
    })?;
    let decimals = match (section.count("decimals"), known) {
        (Some(n), _) if n > DECIMALS_MAX as usize => {
            section.complain("decimals", format!("expected at most {DECIMALS_MAX}"), None);
            return None;
        }
        (Some(n), _) => n as u32,
        (None, Some(known)) => known.decimals,
        (None, None) => {
            let help = "add `decimals = 6`, as the token's contract says".to_owned();
            section.complain("asset", "this token is not known, so its decimals must be given", Some(help));
            return None;
        }
    };
    let currency = match (section.text("currency"), known) {
        (Some(text), _) => section.accept("currency", Currency::parse(text))?,
        (None, Some(known)) => Currency::parse(known.currency).ok()?,
        (None, None) => {
            let help = "add `currency = \"USD\"`, if one token is worth one of it".to_owned();
            section.complain("asset", "this token is not known, so what it is worth must be given", Some(help));
            return None;
        }
    };
    let address = known.map_or(asset, |known| known.address).to_owned();
    let facilitator = section.text("facilitator_address");
    if let Some(text) = facilitator
        && (network.is_svm() || Address::parse(text).is_err() || (is_mixed(text) && !is_checked(text)))
    {
        let message = format!("expected an address on a chain of Ethereum, found `{}`", quote(text));
        let help = "copy `facilitatorAddress` from your facilitator's /supported".to_owned();
        section.complain("facilitator_address", message, Some(help));
    }
    Some(Token {
        facilitator: facilitator.map(str::to_owned),
        transfer: transfer(section, &network, known)?,
        book: Token::book_name(&network, &address),
        network,
        address,
        symbol: known.map_or(asset, |known| known.symbol).to_owned(),
        decimals,
        currency,
        pay_to: pay_to.to_owned(),
    })
}

fn known(network: &Network, asset: &str) -> Option<&'static KnownAsset> {
    let named = |a: &&KnownAsset| a.network == network.as_str() && a.symbol.eq_ignore_ascii_case(asset);
    assets::find(network, asset).or_else(|| ASSETS.iter().find(named))
}

fn transfer(section: &Section<'_>, network: &Network, known: Option<&KnownAsset>) -> Option<Transfer> {
    if network.is_svm() {
        let Some(fee_payer) = section.text("fee_payer").filter(|text| is_base58(text)) else {
            let help = "add the `feePayer` that your facilitator's /supported names for this network".to_owned();
            let at = if section.has("fee_payer") { "fee_payer" } else { "network" };
            section.complain(at, "payments on Solana need a `fee_payer`", Some(help));
            return None;
        };
        return Some(Transfer::Svm { fee_payer: fee_payer.to_owned() });
    }
    let text = |key: &str, known: Option<&str>| match section.text(key).or(known) {
        Some(text) if (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control) => {
            Some(text.to_owned())
        }
        _ => {
            let at = if section.has(key) { key } else { "asset" };
            let message = format!("`{key}` of the token's EIP-712 domain is not known, so it must be given");
            section.complain(at, message, Some(format!("add `{key} = \"…\"`, as the token's contract says")));
            None
        }
    };
    let name = text("name", known.map(|known| known.name));
    let version = text("version", known.map(|known| known.version));
    let (name, version) = (name?, version?);
    Some(match section.text("transfer") {
        Some("permit2") => Transfer::Permit2 { name, version },
        _ => Transfer::Eip3009 { name, version },
    })
}

/// Upper and lower case mean a checksum.
fn is_mixed(address: &str) -> bool {
    let digits = address.trim_start_matches("0x");
    digits.bytes().any(|b| b.is_ascii_uppercase()) && digits.bytes().any(|b| b.is_ascii_lowercase())
}

/// Whether the case of its letters is that of its checksum (EIP-55).
fn is_checked(address: &str) -> bool {
    Address::parse(address).is_ok_and(|parsed| parsed.to_string() == address)
}

/// 32 to 44 characters of Bitcoin's base 58.
fn is_base58(text: &str) -> bool {
    let digit = |b: u8| b.is_ascii_alphanumeric() && !b"0OIl".contains(&b);
    (32..=44).contains(&text.len()) && text.bytes().all(digit)
}

pub(super) fn facilitators(root: &Section<'_>, base: &Path) -> Option<Vec<Facilitator>> {
    let one = |(name, section): &(&str, Section<'_>)| {
        let url = urls::page(section, "url")??;
        let url = url.trim_end_matches('/').to_owned();
        if url.contains(['?', '#']) {
            section.complain("url", "a query or fragment has no place here", None);
            return None;
        }
        if url.starts_with("http://") && !url.starts_with("http://127.0.0.1") && !url.starts_with("http://localhost") {
            let help = "write `https://`, unless the way there is your own";
            section.layers.warn(&section.at("url"), "payments go to this facilitator in the open", help);
        }
        Some(Facilitator {
            name: Arc::from(*name),
            url,
            auth_file: section.text("auth_file").map(|file| base.join(file)),
            ca_file: section.text("ca_file").map(|file| base.join(file)),
            idempotent: section.flag("idempotent"),
        })
    };
    root.named("facilitators").iter().map(one).collect()
}

/// Refuses routes that take `exact` or `upto` and can't be paid by it.
pub(super) fn payable(root: &Section<'_>, exact: &Exact, facilitators: &[Facilitator], config: &Parts<'_>) {
    for (index, route) in config.routes.iter().enumerate() {
        let Some(price) = route.price.filter(|_| route.accept.iter().any(|scheme| scheme.is_token())) else { continue };
        let at = format!("routes[{index}].accept");
        if route.accept.contains(&Scheme::Upto) {
            let settles = |token: &&Arc<Token>| token.currency == price.currency && token.facilitator.is_some();
            if !exact.assets.iter().any(|token| settles(&token)) {
                let message = format!("no token of `[exact]` worth {} has a `facilitator_address`", price.currency);
                let help =
                    "set `facilitator_address` in `[[exact.assets]]`, as the facilitator's /supported says".to_owned();
                root.layers.complain(&at, message, Some(help));
            }
            if route.settle == Settle::First {
                let message = "how much of `upto` is settled is known only once the origin has answered";
                let help = "use `\"on_head\"` or `\"after_body\"`".to_owned();
                root.layers.complain(&format!("routes[{index}].settle"), message, Some(help));
            }
        }
        let usable: Vec<&Arc<Token>> = exact.assets.iter().filter(|token| token.currency == price.currency).collect();
        if usable.is_empty() {
            let help = "add an `[[exact.assets]]` section with `network`, `asset` and `pay_to`".to_owned();
            let message = format!("no token of `[exact]` is worth {}", price.currency);
            root.layers.complain(&at, message, Some(help));
        }
        let dearer = route.agents.iter().enumerate().filter_map(|(at, rule)| match rule.then {
            Then::Price(own) if own.units > price.units => Some((format!("routes[{index}].agents[{at}].price"), own)),
            _ => None,
        });
        for (key, price) in dearer.chain([(format!("routes[{index}].price"), price)]) {
            for token in usable.iter().filter(|token| token.units(price).is_none()) {
                let message = format!("{} on {} can't express this price", token.symbol, token.network);
                root.layers.complain(&key, message, Some(format!("it has {} decimals", token.decimals)));
            }
        }
        if facilitators.is_empty() && !exact.sandbox {
            let help =
                "add `[facilitators.NAME]` with its `url`, or try it with `exact.sandbox = true` or `run --sandbox`"
                    .to_owned();
            root.layers.complain(&at, "no facilitator could settle it", Some(help));
        }
        let head = config.heads.get(route.origin).copied().unwrap_or_default();
        let needed = head + SETTLE_MARGIN_S;
        if config.ttl < needed {
            let message = format!("a payment may expire while the origin works: {} s < {needed} s", config.ttl);
            let help = format!("`offers.ttl_seconds` must be at least the origin's `head_seconds` + {SETTLE_MARGIN_S}");
            root.layers.complain(&at, message, Some(help));
        }
    }
}

/// What [`payable`] looks at besides.
pub(super) struct Parts<'c> {
    pub(super) routes: &'c [Route],
    /// `head_seconds` of each origin.
    pub(super) heads: &'c [u64],
    /// `offers.ttl_seconds`.
    pub(super) ttl: u64,
}

/// Seconds between the origin's head and the end of a payment that a settlement needs.
const SETTLE_MARGIN_S: u64 = 30;
