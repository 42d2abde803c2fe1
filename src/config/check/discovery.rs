//! `[signing]`, `[discovery]`, and `bazaar` of a route.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{
    config::{Discovery, Signing, read::Section},
    payment::bazaar::{Bazaar, takes_body},
};

/// Longest example, in bytes: it goes into each offer.
const EXAMPLE_BYTES_MAX: usize = 1000;

pub(super) fn signing(section: &Section<'_>, base: &Path) -> Option<Signing> {
    let file = section.text("key_file");
    if file == Some("") {
        section.complain("key_file", "expected a file, found nothing", None);
        return None;
    }
    let offers = section.flag("offers");
    if offers && file.is_none() {
        let help = "set `key_file`, or remove `offers`".to_owned();
        section.complain("offers", "there is no key to sign with", Some(help));
        return None;
    }
    Some(Signing {
        key_file: file.map(|file| base.join(file)),
        offers,
        receipts: section.flag("receipts"),
        transaction: section.flag("transaction"),
    })
}

pub(super) fn discovery(section: &Section<'_>) -> Discovery {
    match section.text("serve") {
        Some("always") => Discovery::Always,
        Some("off") => Discovery::Off,
        _ => Discovery::Fallback,
    }
}

/// The examples of a route; `Some(None)` where it gives none.
pub(super) fn bazaar(section: &Section<'_>, methods: &[String], is_tool: bool) -> Option<Option<Bazaar>> {
    let query = example(section, "query", |text| object(text).map(Some));
    let kind = match section.text("body_type") {
        Some("form-data") => "form-data",
        Some("text") => "text",
        _ => "json",
    };
    let body = example(section, "body", |text| {
        let value = match kind {
            "text" => Value::from(text),
            "form-data" => Value::Object(object(text)?),
            _ => serde_json::from_str(text).map_err(|error| format!("expected JSON: {error}"))?,
        };
        Ok(Some((kind, value)))
    });
    let output = example(section, "output", |text| {
        serde_json::from_str(text).map(Some).map_err(|error| format!("expected JSON: {error}"))
    });
    let input_schema = example(section, "input_schema", |text| object(text).map(Some));
    if section.has("input_schema") && !is_tool {
        let help = "remove it, or say in `body` and `query` how the path is asked for".to_owned();
        section.complain("input_schema", "only a route with `tool` has arguments", Some(help));
        return None;
    }
    if section.has("body") && !methods.is_empty() && !methods.iter().any(|method| takes_body(method)) {
        let help = "remove it, or add \"POST\" to `methods`".to_owned();
        section.complain("body", "none of the route's methods sends a body", Some(help));
        return None;
    }
    let (query, body, output): (Option<Map<String, Value>>, _, Option<Value>) = (query?, body?, output?);
    let input_schema: Option<Map<String, Value>> = input_schema?;
    let given = query.is_some() || body.is_some() || output.is_some() || input_schema.is_some();
    Some(given.then_some(Bazaar { query, body, input_schema, output }))
}

/// A key's example; `None` when there is one that can't be read.
fn example<T>(section: &Section<'_>, key: &str, read: impl Fn(&str) -> Result<Option<T>, String>) -> Option<Option<T>> {
    let Some(text) = section.text(key) else { return Some(None) };
    if text.len() > EXAMPLE_BYTES_MAX {
        section.complain(key, format!("expected at most {EXAMPLE_BYTES_MAX} bytes, found {}", text.len()), None);
        return None;
    }
    section.accept(key, read(text))
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("expected a JSON object such as `{{\"a\": 1}}`: {error}"))
}
