//! `[identity]`, `[[accounts]]`, `[operator]`.

use std::{collections::HashMap, path::Path, sync::Arc};

use super::{agreed, urls};
use crate::{
    config::{
        Account, AgentPattern, Identity, Operator, Period, Pin,
        read::Section,
        walk::{nearest, quote},
    },
    pricing::{Crawlers, crawlers},
    wire::jwk::{Jwk, JwkError},
};

/// The public key of RFC 8032 §7.1, whose private half is printed there.
const RFC8032_KEY_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
/// Longest account name.
const NAME_BYTES_MAX: usize = 64;
/// Longest text that a statement prints of a party.
const LETTERHEAD_BYTES_MAX: usize = 1000;
/// Longest mail address (RFC 5321 §4.5.3.1.3, as corrected).
const EMAIL_BYTES_MAX: usize = 254;

pub(super) fn identity(section: &Section<'_>, base: &Path) -> Option<Identity> {
    let allow = patterns(section, "allow");
    let crawlers = crawlers(section);
    let allow_test_keys = section.flag("allow_test_keys");
    let sections = section.list("pins");
    let mut pins: Vec<Pin> = Vec::new();
    let mut seen: HashMap<(String, String), String> = HashMap::new();
    for pin in &sections {
        let agent = urls::origin(pin, "agent").map(|url| url.to_string());
        let jwk = jwk(&pin.section("jwk"), allow_test_keys);
        let (Some(agent), Some(jwk)) = (agent, jwk) else { continue };
        if let Some(first) = seen.insert((agent.clone(), jwk.clone()), pin.path.clone()) {
            section.layers.clash(&pin.path, &first, "the same key is pinned for the same agent twice", None);
            continue;
        }
        pins.push(Pin { agent, jwk });
    }
    let complete = pins.len() == sections.len();
    Some(Identity {
        allow: allow?,
        crawlers: crawlers?,
        skew: section.seconds("skew_seconds"),
        allow_test_keys,
        require_signed_directories: section.flag("require_signed_directories"),
        ca_file: section.text("ca_file").map(|file| base.join(file)),
        fetch: section.seconds("fetch_seconds"),
        directory_bytes: section.number("directory_bytes"),
        directory_keys: section.number("directory_keys"),
        directories: section.number("directories"),
        pins: complete.then_some(pins)?,
    })
}

/// The shipped crawlers with those that are added and without those that are taken out.
fn crawlers(section: &Section<'_>) -> Option<Crawlers> {
    let (added, ignored) = (section.texts("crawlers"), section.texts("crawlers_ignore"));
    let mut whole = true;
    for (path, name) in added.iter().chain(&ignored).filter(|(_, name)| !crawlers::is_name(name)) {
        whole = false;
        let message = format!("expected one word of letters, digits, `-` and `_`, found `{}`", quote(name));
        section.layers.complain(path, message, Some("write `\"GPTBot\"` for `GPTBot/1.2`".to_owned()));
    }
    let known = || Crawlers::shipped().chain(added.iter().map(|(_, name)| *name));
    for (path, name) in ignored.iter().filter(|(_, name)| !known().any(|known| known.eq_ignore_ascii_case(name))) {
        let help = match nearest(name, known()) {
            Some(near) => format!("did you mean `\"{near}\"`?"),
            None => "remove it".to_owned(),
        };
        section.layers.warn(path, format!("no crawler that is known has the name `{}`", quote(name)), &help);
    }
    let ignored: Vec<&str> = ignored.iter().map(|(_, name)| *name).collect();
    whole.then(|| Crawlers::new(added.iter().map(|(_, name)| *name), &ignored))
}

/// The canonical JSON (RFC 7638 §3) of a key that can be used.
fn jwk(section: &Section<'_>, allow_test_keys: bool) -> Option<String> {
    let member = |key| section.text(key).map(str::to_owned);
    let (crv, x, y, n, e) = (member("crv"), member("x"), member("y"), member("n"), member("e"));
    let jwk = Jwk { kty: member("kty")?, crv, x, y, n, e, ..Jwk::default() };
    let published = |name: &str| {
        let help = "use a key of the agent's own; `identity.allow_test_keys = true` is for tests only".to_owned();
        section.complain(name, "the private half of this key is published, so anybody can sign with it", Some(help));
    };
    match jwk.public_key(allow_test_keys) {
        Ok(_) if jwk.x.as_deref() == Some(RFC8032_KEY_X) && !allow_test_keys => published("x"),
        Ok(key) => return Some(key.canonical_jwk()),
        Err(error @ JwkError::TestKey) => published(named(&jwk, &error)),
        Err(error) => section.complain(named(&jwk, &error), error.to_string(), None),
    }
    None
}

/// The member that the problem is shown at: `n` for what is said of an RSA key as a whole.
fn named(jwk: &Jwk, error: &JwkError) -> &'static str {
    match error {
        JwkError::Weak(_) | JwkError::TestKey if jwk.kty == "RSA" => "n",
        _ => error.member(),
    }
}

fn patterns(section: &Section<'_>, key: &str) -> Option<Vec<AgentPattern>> {
    let texts = section.texts(key);
    let found: Vec<(String, AgentPattern)> =
        texts.iter().filter_map(|(path, text)| Some((path.clone(), urls::pattern(section, path, text)?))).collect();
    let mut seen = HashMap::new();
    for (path, agent) in &found {
        if let Some(other) = seen.insert(format!("{agent:?}"), path) {
            section.layers.clash(path, other, "the same agent is listed twice", None);
        }
    }
    (found.len() == texts.len()).then(|| found.into_iter().map(|(_, agent)| agent).collect())
}

pub(super) fn accounts(root: &Section<'_>) -> Option<Vec<Account>> {
    let sections = root.list("accounts");
    let mut names: HashMap<&str, String> = HashMap::new();
    let mut owners: HashMap<String, (String, usize)> = HashMap::new();
    let mut accounts = Vec::new();
    for (index, section) in sections.iter().enumerate() {
        let name = section.text("name").filter(|name| is_account_name(name, section));
        if let Some(name) = name
            && let Some(other) = names.insert(name, section.at("name"))
        {
            let message = format!("the name `{name}` is taken by another account");
            root.layers.clash(&section.at("name"), &other, message, None);
        }
        let agents = patterns(section, "agents");
        if agents.as_ref().is_some_and(Vec::is_empty) && section.has("agents") {
            let help = "write `agents = [\"https://signer.example.com\"]`".to_owned();
            section.complain("agents", "an account without agents can never be used", Some(help));
        }
        for (at, agent) in agents.iter().flatten().enumerate() {
            let path = format!("{}[{at}]", section.at("agents"));
            let owner = owners.insert(format!("{agent:?}"), (path.clone(), index));
            if let Some((other, _)) = owner.filter(|(_, owner)| *owner != index) {
                root.layers.clash(&path, &other, "the agent belongs to another account already", None);
            }
        }
        let credit = agreed::credit(section);
        let allowance = agreed::allowance(section);
        let prices = credit.and_then(|(credit, _)| agreed::prices(section, credit.currency));
        let address = letterhead(section, "address", true);
        let (Some(name), Some(agents), Some(address)) = (name, agents, address) else { continue };
        let (Some((credit, prepaid)), Some(allowance), Some(prices)) = (credit, allowance, prices) else { continue };
        accounts.push(Account {
            name: Arc::from(name),
            agents,
            credit,
            prepaid,
            allowance,
            prices,
            period: match section.text("period") {
                Some("day") => Period::Day,
                _ => Period::Month,
            },
            blocked: section.flag("blocked"),
            address,
        });
    }
    (accounts.len() == sections.len()).then_some(accounts)
}

pub(super) fn operator(section: &Section<'_>) -> Option<Operator> {
    let (name, address) = (letterhead(section, "name", false), letterhead(section, "address", true));
    let email = section.text("email");
    if let Some(email) = email
        && !is_email(email)
    {
        let message = format!("expected a mail address such as billing@example.com, found `{}`", quote(email));
        section.complain("email", message, None);
        return None;
    }
    Some(Operator { name: name?, address: address?, email: email.map(str::to_owned) })
}

/// Enough of a check for what is printed, never sent to.
fn is_email(text: &str) -> bool {
    let parts = text.split_once('@').filter(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'));
    parts.is_some() && text.len() <= EMAIL_BYTES_MAX && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// Text of a statement, where there is any: `Some(None)` where there is none.
fn letterhead(section: &Section<'_>, key: &str, lines: bool) -> Option<Option<String>> {
    let Some(text) = section.text(key) else { return Some(None) };
    let printable = |c: char| !c.is_control() || (lines && c == '\n');
    let fits = !text.trim().is_empty() && text.len() <= LETTERHEAD_BYTES_MAX && text.chars().all(printable);
    if !fits {
        let kind = if lines { "lines" } else { "a line" };
        let found = quote(text);
        let message = format!("expected {kind} of text, 1 to {LETTERHEAD_BYTES_MAX} bytes, found `{found}`");
        section.complain(key, message, None);
        return None;
    }
    Some(Some(text.trim().to_owned()))
}

/// Names travel in a header field and stand in the books.
fn is_account_name(name: &str, section: &Section<'_>) -> bool {
    if name.starts_with("open:") {
        let help = "take another name; `[open_accounts]` lets agents open accounts".to_owned();
        section.complain("name", "names with `open:` are for accounts that agents open", Some(help));
        return false;
    }
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:@/".contains(&b));
    if !fits {
        let message = format!("expected 1 to {NAME_BYTES_MAX} letters, digits and `-_.:@/`, found `{}`", quote(name));
        section.complain("name", message, None);
    }
    fits
}
