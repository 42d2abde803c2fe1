//! Addresses of other servers.

use crate::{
    config::{AgentPattern, read::Section, walk::quote},
    wire::{
        agent_url::{AgentUrl, AgentUrlError},
        host::normal_host,
    },
};

/// Longest URL that an offer carries.
const URL_BYTES_MAX: usize = 1000;

/// A scheme with an authority, and nothing after.
pub(super) fn origin(section: &Section<'_>, key: &str) -> Option<AgentUrl> {
    let text = section.text(key)?;
    let at = section.at(key);
    parse(text, |message, help| section.layers.complain(&at, message, help))
}

fn parse(text: &str, complain: impl Fn(String, Option<String>)) -> Option<AgentUrl> {
    match AgentUrl::parse(text) {
        Ok(url) => Some(url),
        Err(error) => {
            let help = match &error {
                AgentUrlError::Scheme if AgentUrl::parse(&format!("https://{text}")).is_ok() => {
                    Some(format!("write `\"https://{text}\"`"))
                }
                AgentUrlError::Path | AgentUrlError::Query | AgentUrlError::Fragment => {
                    let start = text.find("://").map_or(0, |at| at + 3);
                    let end = text[start..].find(['/', '?', '#', '\\']).map_or(text.len(), |at| start + at);
                    Some(format!("write `{}`", quote(&text[..end])))
                }
                AgentUrlError::Host((_, help)) => help.clone(),
                _ => None,
            };
            let shape = "expected scheme, host and port such as `https://example.com`";
            complain(format!("{shape}, found `{}`: {error}", quote(text)), help);
            None
        }
    }
}

fn key_set(text: &str, complain: impl Fn(String, Option<String>)) -> Option<AgentUrl> {
    match AgentUrl::parse_key_set(text) {
        Ok(url) => Some(url),
        Err(error) => {
            let shape = "expected an agent's origin such as `https://example.com`, or the URL of its key set";
            complain(format!("{shape}, found `{}`: {error}", quote(text)), None);
            None
        }
    }
}

/// `any`, `https://*.example.com`, an agent's origin or the URL of its key set.
pub(super) fn pattern(section: &Section<'_>, path: &str, text: &str) -> Option<AgentPattern> {
    let complain = |message: String, help: Option<String>| section.layers.complain(path, message, help);
    if text == "any" {
        return Some(AgentPattern::Any);
    }
    let Some((scheme, below)) = text.split_once("://*.") else {
        if text.contains('*') {
            let help = "write `\"https://*.example.com\"`, or `\"any\"`";
            complain(
                format!("`*` stands only for the leftmost labels, found `{}`", quote(text)),
                Some(help.to_owned()),
            );
            return None;
        }
        // With a path it is a key set.
        let start = text.find("://").map_or(0, |at| at + 3);
        if text[start..].find('/').is_some_and(|at| start + at + 1 < text.len()) {
            return key_set(text, complain).map(|url| AgentPattern::Exact(url.to_string()));
        }
        return parse(text, complain).map(|url| AgentPattern::Exact(url.to_string()));
    };
    if !scheme.eq_ignore_ascii_case("https") {
        let help = "name plain-HTTP agents one by one".to_owned();
        complain("a pattern of agents must start with `https://`".to_owned(), Some(help));
        return None;
    }
    match normal_host(below.strip_suffix('/').unwrap_or(below)) {
        Ok(host) if !host.contains('.') => {
            let help = "write `\"any\"` if every agent is meant".to_owned();
            complain(format!("`*.{host}` is everybody's"), Some(help));
            None
        }
        Ok(host) if host.parse::<std::net::Ipv4Addr>().is_ok() || host.starts_with('[') => {
            complain("an address has no hosts below it".to_owned(), None);
            None
        }
        Ok(host) => Some(AgentPattern::Below(format!(".{host}"))),
        Err((reason, help)) => {
            complain(format!("expected `https://*.example.com`, found `{}`: {reason}", quote(text)), help);
            None
        }
    }
}

/// An absolute http or https URL, with path, for offers.
pub(super) fn page(section: &Section<'_>, key: &str) -> Option<Option<String>> {
    let Some(text) = section.text(key) else {
        return Some(None);
    };
    let wrong = |why: &str| {
        let message = format!("expected a URL such as `https://example.com/terms`, found `{}`: {why}", quote(text));
        section.complain(key, message, None);
        None
    };
    if text.len() > URL_BYTES_MAX {
        return wrong(&format!("it has more than {URL_BYTES_MAX} bytes"));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) || text.contains(['"', '<', '>', '\\', '^', '`', '{', '|', '}']) {
        return wrong("it contains characters that must be percent-encoded");
    }
    let start = text.find("://").map_or(0, |at| at + 3);
    let end = text[start..].find(['/', '?', '#']).map_or(text.len(), |at| start + at);
    match AgentUrl::parse(&text[..end]) {
        Ok(_) => Some(Some(text.to_owned())),
        Err(error) => wrong(&error.to_string()),
    }
}
