//! `[offers]`, `[deferred]`, `[batch_settlement]`, `[ledger]`, `[telemetry]`.

use std::{path::Path, sync::Arc};

use super::urls;
use crate::{
    config::{Access, BatchSettlement, Deferred, Ledger, Offers, Telemetry, read::Section, walk::quote},
    ledger::{location::Location, postgres::server::Server, targets::KeepTargets},
    telemetry::access::{Format, Sink},
};

/// Longest `pay_to`.
const PAY_TO_BYTES_MAX: usize = 128;

pub(super) fn offers(section: &Section<'_>, base: &Path) -> Option<Offers> {
    let file = section.text("secret_file")?;
    if file.is_empty() {
        section.complain("secret_file", "expected a file, found nothing", None);
        return None;
    }
    Some(Offers {
        secret_file: base.join(file),
        ttl: section.seconds("ttl_seconds"),
        html: section.flag("html"),
        origin_prices: section.number("origin_prices"),
        origin_price: section.seconds("origin_price_seconds"),
    })
}

pub(super) fn deferred(section: &Section<'_>) -> Option<Deferred> {
    let network = network(section, "`namespace:reference` (CAIP-2) or one word", is_network);
    let pay_to = pay_to(section);
    let terms_url = urls::page(section, "terms_url");
    let registration_url = urls::page(section, "registration_url");
    Some(Deferred {
        network: network?.to_owned(),
        pay_to: pay_to?.to_owned(),
        terms_url: terms_url?,
        registration_url: registration_url?,
        window: section.seconds("window_seconds"),
        require_authority: section.flag("require_authority"),
        require_path: section.flag("require_path"),
        lenient_signature: section.flag("lenient_signature"),
    })
}

pub(super) fn batch_settlement(section: &Section<'_>) -> Option<BatchSettlement> {
    let is_caip2 = |text: &str| text.contains(':') && is_network(text);
    let (network, pay_to) = (network(section, "`namespace:reference` (CAIP-2)", is_caip2), pay_to(section));
    Some(BatchSettlement { network: network?.to_owned(), pay_to: pay_to?.to_owned() })
}

fn network<'s>(section: &Section<'s>, expected: &str, is_one: impl Fn(&str) -> bool) -> Option<&'s str> {
    section.text("network").filter(|text| {
        let known = is_one(text);
        if !known {
            let message = format!("expected {expected}, found `{}`", quote(text));
            let help = "a namespace has 3 to 8 of `a-z0-9-`, a reference 1 to 32 of `a-zA-Z0-9_-`";
            section.complain("network", message, Some(help.to_owned()));
        }
        known
    })
}

fn pay_to<'s>(section: &Section<'s>) -> Option<&'s str> {
    section.text("pay_to").filter(|text| {
        let fits = (1..=PAY_TO_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if !fits {
            let message = format!("expected 1 to {PAY_TO_BYTES_MAX} visible ASCII characters, found `{}`", quote(text));
            section.complain("pay_to", message, None);
        }
        fits
    })
}

/// CAIP-2, or a word as x402 v1 has them.
fn is_network(text: &str) -> bool {
    let word = |s: &str, upper: bool, most: usize, least: usize| {
        (least..=most).contains(&s.len())
            && s.bytes().all(|b| {
                b.is_ascii_lowercase()
                    || b.is_ascii_digit()
                    || b == b'-'
                    || (upper && (b.is_ascii_uppercase() || b == b'_'))
            })
    };
    match text.split_once(':') {
        Some((namespace, reference)) => word(namespace, false, 8, 3) && word(reference, true, 32, 1),
        None => word(text, true, 32, 1),
    }
}

pub(super) fn ledger(section: &Section<'_>, base: &Path) -> Option<Ledger> {
    let url = section.text("url")?;
    let wrong = |why: &str, help: &str| {
        let message = format!("expected `sqlite:` and a file, or `postgres://…`, found `{}`: {why}", quote(url));
        section.complain("url", message, Some(help.to_owned()));
        None
    };
    let location = match url.split_once(':') {
        Some(("sqlite", path)) => match path {
            "" => wrong("the file is missing", "write `\"sqlite:tollgate.sqlite\"`"),
            _ if path.starts_with(':') => wrong("books in memory are no books", "write `\"sqlite:tollgate.sqlite\"`"),
            _ if path.contains(['?', '#', '\0']) => {
                wrong("options are not supported", "give the file's name alone, without `?` and `#`")
            }
            _ if path.starts_with("//") && !path.starts_with("///") => {
                wrong("this is no path", "write `\"sqlite:file\"`, or `\"sqlite:/path/to/file\"`")
            }
            _ => Some(Location::File(base.join(path.strip_prefix("//").unwrap_or(path)))),
        },
        Some(("postgres" | "postgresql", _)) => server(section, url, base),
        _ => wrong("it is no ledger of this version", "write `\"sqlite:tollgate.sqlite\"`"),
    };
    let zone = section.text("zone").and_then(|name| match jiff::tz::TimeZone::get(name) {
        Ok(zone) => Some(zone.iana_name().unwrap_or(name).to_owned()),
        Err(_) => {
            let message = format!("expected an IANA time zone such as `Europe/Berlin`, found `{}`", quote(name));
            section.complain("zone", message, None);
            None
        }
    });
    Some(Ledger {
        location: location?,
        zone: zone?,
        keys_max: section.number("keys_max"),
        queue_max: section.number("queue_max"),
        dispute_days: u32::try_from(section.number("dispute_days")).unwrap_or(u32::MAX),
        voids_per_day: u32::try_from(section.number("voids_per_day")).unwrap_or(u32::MAX),
        disputes_per_day: u32::try_from(section.number("disputes_per_day")).unwrap_or(u32::MAX),
        keep_targets: match section.text("keep_targets") {
            Some("path") => KeepTargets::Path,
            Some("hash") => KeepTargets::Hash,
            _ => KeepTargets::Full,
        },
        sync: section.flag("sync"),
    })
}

/// A database that several gateways share.
fn server(section: &Section<'_>, url: &str, base: &Path) -> Option<Location> {
    let password = match section.text("password_file").map(|file| base.join(file)) {
        None => None,
        Some(file) => match std::fs::read_to_string(&file) {
            Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => {
                let message = format!("expected a file with the password, found {}: {error}", file.display());
                section.complain("password_file", message, None);
                return None;
            }
        },
    };
    let ca_file = section.text("ca_file").map(|file| base.join(file));
    match Server::parse(url, password.as_deref(), ca_file.as_deref()) {
        Ok(server) => Some(Location::Server(Arc::new(server))),
        Err(why) => {
            let key = if why.starts_with("ca_file") { "ca_file" } else { "url" };
            let expected = "`postgres://user@host:5432/database`";
            section.complain(key, format!("expected {expected}, found another URL: {why}"), None);
            None
        }
    }
}

pub(super) fn telemetry(section: &Section<'_>, base: &Path) -> Option<Telemetry> {
    let log = section.text("log")?;
    // An empty filter logs nothing but errors without saying so.
    if log.trim().is_empty() || tracing_subscriber::EnvFilter::builder().parse(log).is_err() {
        let message = format!("expected a level or a filter such as `warn,tollgate=debug`, found `{}`", quote(log));
        section.complain("log", message, None);
        return None;
    }
    let sink = |text: &str| match text {
        "stdout" => Sink::Stdout,
        "stderr" => Sink::Stderr,
        file => Sink::File(base.join(file)),
    };
    let format = match section.text("access_format") {
        Some("logfmt") => Format::Logfmt,
        _ => Format::Json,
    };
    let access = section.text("access_log").map(|text| Access { sink: sink(text), format });
    Some(Telemetry { log: log.to_owned(), json: section.text("format") == Some("json"), access })
}
