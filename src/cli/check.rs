//! `tollgate check`: what a configuration means, or everything that is wrong with it.

use std::{fmt::Write, path::Path};

use serde_json::{Value, json};

use crate::config::{
    self, Access, Account, AgentRule, Allowance, Charge, Config, ForwardedFields, Options, Period, Route, Scheme, Then,
};
use crate::payment::pass::RoutePass;
use crate::payment::token::Token;
use crate::server::files;
use crate::telemetry::access::{Format, Sink};
use crate::wire::amount::{Money, Units};

/// Exit code of a configuration that cannot be used.
const UNUSABLE: u8 = 2;

/// Reads a configuration with a command's options over it; what to print, and the exit code: 0, or 2 if it cannot be used.
///
/// With `json` one object: `{"ok": true, "summary": {…}, "problems": [{"level", "file", "line", "column", "variable",
/// "key", "message", "help"}]}`; warnings are among the problems of a usable one.
pub fn check(
    path: &Path,
    env: impl Iterator<Item = (String, String)>,
    options: Options,
    json: bool,
    color: bool,
) -> (String, u8) {
    match config::load_with(path, env, options) {
        Ok(config) if !files::problems(&config).is_empty() => {
            let problems = files::problems(&config);
            if json {
                let problems = problems.iter().map(|(key, what)| {
                    json!({"level": "error", "file": null, "line": null, "column": null, "variable": null, "key": key,
                           "message": what, "help": null})
                });
                let problems: Vec<Value> = problems.collect();
                return (lines(&json!({ "ok": false, "summary": null, "problems": problems })), UNUSABLE);
            }
            let text = problems.iter().map(|(key, what)| format!("error: {key}: {what}\n"));
            (
                text.collect::<String>() + &format!("\n{}: {} unusable\n", path.display(), counted(problems.len())),
                UNUSABLE,
            )
        }
        Ok(config) if json => {
            let problems = config.warnings.as_ref().map_or_else(|| json!([]), config::ConfigErrors::to_json);
            (lines(&json!({ "ok": true, "summary": summary_json(&config), "problems": problems })), 0)
        }
        Ok(config) => {
            let warnings = config.warnings.as_ref().map(|warnings| warnings.render(color) + "\n\n");
            (warnings.unwrap_or_default() + &summary(path, &config), 0)
        }
        Err(errors) if json => {
            (lines(&json!({ "ok": false, "summary": null, "problems": errors.to_json() })), UNUSABLE)
        }
        Err(errors) => {
            let (count, rendered) = (errors.len(), errors.render(color));
            let noun = if count == 1 { "problem" } else { "problems" };
            (format!("{rendered}\n\n{}: {count} {noun}\n", path.display()), UNUSABLE)
        }
    }
}

fn counted(files: usize) -> String {
    if files == 1 { "1 file is".to_owned() } else { format!("{files} files are") }
}

fn lines(value: &Value) -> String {
    format!("{value:#}\n")
}

fn summary(path: &Path, config: &Config) -> String {
    let mut out = format!("{}: usable\n", path.display());
    let mut line = |name: &str, text: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "  {name:<8} {text}");
    };
    if config.exact.sandbox {
        line("SANDBOX", "ON: token payments are settled on paper, no money moves".to_owned());
    }
    if let Some(text) = observing(config) {
        line("OBSERVE", text);
    }
    let trust = &config.server.trust;
    let has_header = if trust.proxy_protocol { ", PROXY protocol from who is trusted" } else { "" };
    let plain = config.server.listen.iter().map(|place| (place, ""));
    let secure = config.server.tls.iter().flat_map(|tls| tls.listen.iter().map(|place| (place, " by TLS")));
    for (address, by) in plain.chain(secure) {
        let public = config.server.public_url.as_ref().map_or_else(String::new, |url| {
            format!(", known as {}://{}", if url.https { "https" } else { "http" }, url.authority)
        });
        line("listen", format!("{address}{by}{has_header}{public}"));
    }
    if !trust.named().is_empty() {
        let fields = match trust.fields {
            ForwardedFields::XForwarded => "X-Forwarded-For, -Proto and -Host",
            ForwardedFields::Forwarded => "Forwarded",
        };
        line("trusts", format!("{}: {fields}", trust.named().join(", ")));
    }
    for place in &config.admin.listen {
        let token = if config.admin.token_file.is_some() { ", with a token" } else { "" };
        line("admin", format!("{place}{token}"));
    }
    if let Some(access) = &config.telemetry.access {
        line("access", access_log(access));
    }
    for origin in &config.origins {
        line("origin", format!("{} = {}", origin.name, origin_url(origin)));
    }
    for route in &config.routes {
        let methods = if route.methods.is_empty() { "any".to_owned() } else { route.methods.join(",") };
        let sold = route.selector.as_ref().map(|selector| format!("#{selector}")).unwrap_or_default();
        let place = format!("{}{}{sold}", route.host.as_deref().unwrap_or_default(), route.path);
        let price = route.price.map_or_else(|| "free".to_owned(), |price| price.to_string());
        let origin = &config.origins[route.origin].name;
        let who = if route.charge == Charge::Agents { ", agents only" } else { "" };
        let to = if route.origin == 0 { String::new() } else { format!(" → {origin}") };
        let observed = if route.observes() { ", ONLY OBSERVED: free for everybody" } else { "" };
        let pass = route.pass.map_or_else(String::new, |pass| format!(", {}", pass_text(&pass)));
        line("route", format!("{methods} {place}  {price}{}{pass}{who}{observed}{to}", accepts(config, route)));
        for rule in &route.agents {
            line("", format!("{}: {}", rule.name(), then(rule)));
        }
    }
    for facilitator in config.facilitators.iter().filter(|_| !config.exact.sandbox) {
        line("settles", format!("{} = {}", facilitator.name, facilitator.url));
    }
    for account in &config.accounts {
        let agents: Vec<String> = account.agents.iter().map(ToString::to_string).collect();
        let blocked = if account.blocked { ", blocked" } else { "" };
        line("account", format!("{}  {}{blocked}: {}", account.name, may_have(account), agents.join(", ")));
        for agreed in &account.prices {
            line("", format!("{}: {}", agreed.routes.join(", "), price_text(agreed.price)));
        }
    }
    if let Some(open) = &config.open_accounts {
        let (credit, total, period) = (open.credit, open.total, period(open.period));
        let who: Vec<String> = config.identity.allow.iter().map(ToString::to_string).collect();
        let new = open.new_per_day;
        line("open", format!("{credit} a {period} each, {total} together, {new} new a day: {}", who.join(", ")));
    }
    line("ledger", config.ledger.location.shown().display().to_string());
    out
}

/// `stdout`, `/var/log/tollgate/access.log`
fn sink(access: &Access) -> String {
    match &access.sink {
        Sink::Stdout => "stdout".to_owned(),
        Sink::Stderr => "stderr".to_owned(),
        Sink::File(path) => path.display().to_string(),
    }
}

fn access_log(access: &Access) -> String {
    let format = match access.format {
        Format::Json => "JSON",
        Format::Logfmt => "logfmt",
    };
    format!("a line for each request to {}, as {format}", sink(access))
}

/// What a configuration must be said to do that asks nobody for some of its prices.
pub(super) fn observing(config: &Config) -> Option<String> {
    let priced = config.routes.iter().filter(|route| route.price.is_some()).count();
    let observed: Vec<&str> = config.routes.iter().filter(|r| r.observes()).map(|route| &*route.name).collect();
    match observed.len() {
        0 => None,
        all if all == priced => Some("ON for every priced route: nobody pays, nobody is refused".to_owned()),
        some => Some(format!("ON for {some} of {priced} priced routes, on which nobody pays: {}", observed.join(", "))),
    }
}

fn summary_json(config: &Config) -> Value {
    let routes: Vec<Value> = config
        .routes
        .iter()
        .map(|route| {
            json!({
                "name": &*route.name,
                "host": route.host,
                "path": route.path,
                "methods": route.methods,
                "sells": route.selector.as_ref().map(ToString::to_string),
                "price": route.price.map(|price| price.to_string()),
                "accept": accepts_json(config, route),
                "agents": route.agents.iter().map(|rule| json!({ "who": rule.name(), "then": then(rule) })).collect::<Vec<_>>(),
                "mode": route.price.map(|_| if route.observes() { "observe" } else { "enforce" }),
                "pass": route.pass.and_then(|pass| pass.offers).map(|pass| json!({
                    "seconds": pass.good.seconds(),
                    "requests": pass.good.requests().map(Units::get),
                    "for": if pass.whole_route { "route" } else { "resource" },
                })),
                "charge": if route.charge == Charge::Agents { "agents" } else { "everyone" },
                "origin": &*config.origins[route.origin].name,
            })
        })
        .collect();
    let accounts: Vec<Value> = config
        .accounts
        .iter()
        .map(|account| {
            json!({
                "name": &*account.name,
                "agents": account.agents.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "credit": (!account.prepaid).then(|| account.credit.to_string()),
                "prepaid": account.prepaid.then(|| account.credit.currency.to_string()),
                "allowance": account.allowance.as_ref().map(|allowance| json!({
                    "requests": allowance.requests.get(),
                    "routes": allowance.routes.iter().map(|name| &**name).collect::<Vec<_>>(),
                })),
                "prices": account.prices.iter().map(|agreed| json!({
                    "routes": agreed.routes.iter().map(|name| &**name).collect::<Vec<_>>(),
                    "price": price_text(agreed.price),
                })).collect::<Vec<_>>(),
                "period": period(account.period),
                "blocked": account.blocked,
            })
        })
        .collect();
    let origins: Vec<Value> =
        config.origins.iter().map(|origin| json!({ "name": &*origin.name, "url": origin_url(origin) })).collect();
    json!({
        "listen": config.server.places().map(ToString::to_string).collect::<Vec<_>>(),
        "proxy_protocol": config.server.trust.proxy_protocol,
        "trusted_proxies": config.server.trust.named(),
        "admin": config.admin.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "access_log": config.telemetry.access.as_ref().map(sink),
        "origins": origins,
        "routes": routes,
        "sandbox": config.exact.sandbox,
        "accounts": accounts,
        "open_accounts": config.open_accounts.map(|open| json!({
            "credit": open.credit.to_string(),
            "total": open.total.to_string(),
            "period": period(open.period),
            "new_per_day": open.new_per_day,
        })),
        "ledger": config.ledger.location.shown().display().to_string(),
        "table_hash": config.table_hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
    })
}

/// `100.00 USD a month`, `prepaid USD, 1000 requests a month (articles)`
fn may_have(account: &Account) -> String {
    let period = period(account.period);
    let mut text = if account.prepaid {
        format!("prepaid {}", account.credit.currency)
    } else {
        format!("{} a {period}", account.credit)
    };
    if let Some(Allowance { requests, routes }) = &account.allowance {
        let of = if routes.is_empty() { String::new() } else { format!(" ({})", routes.join(", ")) };
        text += &format!(", {} requests a {period}{of}", requests.get());
    }
    text
}

/// `pass for 24h of the same resource`, `pass for 100 requests of this route`
pub(super) fn pass_text(pass: &RoutePass) -> String {
    let Some(pass) = pass.offers else { return "no pass any more, those that were sold are good".to_owned() };
    format!("pass for {} of {}", pass.good, if pass.whole_route { "this route" } else { "the same resource" })
}

/// `0.005 USD`, `free`
pub(super) fn price_text(price: Money) -> String {
    if price.units == Units::ZERO { "free".to_owned() } else { price.to_string() }
}

/// The tokens that a route takes.
fn tokens<'c>(config: &'c Config, route: &Route) -> impl Iterator<Item = &'c Token> {
    let currency = route.price.map(|price| price.currency);
    config.exact.assets.iter().map(AsRef::as_ref).filter(move |token| Some(token.currency) == currency)
}

/// ` by deferred or exact (USDC on eip155:8453)`
pub(super) fn accepts(config: &Config, route: &Route) -> String {
    if route.price.is_none() {
        return String::new();
    }
    let ways = route.accept.iter().map(|scheme| match scheme {
        Scheme::Deferred => "deferred".to_owned(),
        Scheme::BatchSettlement => "batch-settlement".to_owned(),
        Scheme::Crawl => "crawl".to_owned(),
        Scheme::Exact => {
            let tokens = tokens(config, route).map(|token| format!("{} on {}", token.symbol, token.network));
            format!("exact ({})", tokens.collect::<Vec<_>>().join(", "))
        }
        Scheme::Upto => {
            let tokens = tokens(config, route).filter(|token| token.facilitator.is_some());
            let tokens = tokens.map(|token| format!("{} on {}", token.symbol, token.network));
            format!("upto ({})", tokens.collect::<Vec<_>>().join(", "))
        }
    });
    format!(" by {}", ways.collect::<Vec<_>>().join(" or "))
}

fn accepts_json(config: &Config, route: &Route) -> Value {
    if route.price.is_none() {
        return json!([]);
    }
    let token = |token: &Token| {
        let amount = route.price.and_then(|price| token.units(price)).map(|units| token.atomic(units).to_string());
        json!({
            "network": token.network.as_str(), "symbol": token.symbol, "asset": token.address, "amount": amount,
            "payTo": token.pay_to,
        })
    };
    let ways = route.accept.iter().map(|scheme| match scheme {
        Scheme::Deferred => json!({ "scheme": "deferred", "network": config.deferred.network }),
        Scheme::BatchSettlement => json!({ "scheme": "batch-settlement", "network": config.batch_settlement.network }),
        Scheme::Crawl => json!({ "scheme": "crawl" }),
        Scheme::Exact => {
            json!({ "scheme": "exact", "tokens": tokens(config, route).map(token).collect::<Vec<_>>() })
        }
        Scheme::Upto => {
            let tokens = tokens(config, route).filter(|token| token.facilitator.is_some());
            json!({ "scheme": "upto", "tokens": tokens.map(token).collect::<Vec<_>>() })
        }
    });
    Value::Array(ways.collect())
}

pub(super) fn origin_url(origin: &config::Origin) -> String {
    if let Some(socket) = &origin.socket {
        return format!("unix:{}", socket.display());
    }
    let scheme = if origin.https { "https" } else { "http" };
    match origin.host.contains(':') {
        true => format!("{scheme}://[{}]:{}", origin.host, origin.port),
        false => format!("{scheme}://{}:{}", origin.host, origin.port),
    }
}

/// `0.02 USD`, `free` or `blocked`
fn then(rule: &AgentRule) -> String {
    match rule.then {
        Then::Price(price) => price.to_string(),
        Then::Allow => "free".to_owned(),
        Then::Block => "blocked".to_owned(),
    }
}

pub(super) fn period(period: Period) -> &'static str {
    match period {
        Period::Day => "day",
        Period::Month => "month",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, json: bool) -> (String, u8) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.toml");
        std::fs::write(&path, text).unwrap();
        let (shown, code) = check(&path, std::iter::empty(), Options::default(), json, false);
        (shown.replace(&format!("{}/", directory.path().display()), ""), code)
    }

    const GOOD: &str = r#"
        [server]
        public_url = "https://example.com"
        [origin]
        url = "http://[::1]:8080"
        [origins.blog]
        url = "https://blog.internal"
        [[accounts]]
        name = "crawler"
        agents = ["https://Signer.example.com", "https://*.bots.example"]
        credit = "100 USD"
        [[routes]]
        path = "/articles/*"
        price = "0.01 USD"
        [[routes]]
        host = "blog.example.com"
        path = "/*"
        methods = ["GET", "POST"]
        price = "0.001 EUR"
        origin = "blog"
    "#;

    #[test]
    fn says_what_was_understood() {
        let (shown, code) = run(GOOD, false);
        let (warning, summary) = shown.split_once("\n\n").unwrap();
        assert!(warning.starts_with("warning: routes[1].price: nobody can pay"), "{warning}");
        let expect = "t.toml: usable
  listen   127.0.0.1:8402, known as https://example.com
  origin   default = http://[::1]:8080
  origin   blog = https://blog.internal:443
  route    any /articles/*  0.01 USD by deferred
  route    GET,POST blog.example.com/*  0.001 EUR by deferred → blog
  account  crawler  100.00 USD a month: https://signer.example.com, https://*.bots.example
  ledger   tollgate.sqlite
";
        assert_eq!((summary, code), (expect, 0));
        let (shown, code) = run(GOOD, true);
        let value: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!((code, &value["ok"], &value["problems"][0]["level"]), (0, &json!(true), &json!("warning")));
        assert_eq!(value["summary"]["routes"][1]["price"], "0.001 EUR");
    }

    #[test]
    fn says_who_comes_in_and_who_is_believed() {
        let open = GOOD.replace(
            "public_url = \"https://example.com\"",
            "listen = [\"127.0.0.1:1\", \"unix:/run/t.sock\"]\ntrusted_proxies = [\"10.0.0.0/8\", \"unix\", \"::/0\"]\n\
             proxy_protocol = true\nforwarded_fields = \"forwarded\"\n[admin]\nlisten = [\"127.0.0.1:2\"]\n[telemetry]\n\
             access_log = \"stdout\"\naccess_format = \"logfmt\"\n",
        );
        let (shown, code) = run(&open, false);
        assert_eq!(code, 0, "{shown}");
        let warning = "warning: server.trusted_proxies[2]: `::/0` is everybody: each client is believed about its address, host and \
                       scheme";
        assert!(shown.contains(warning), "{shown}");
        let expect = "
  listen   127.0.0.1:1, PROXY protocol from who is trusted
  listen   unix:/run/t.sock, PROXY protocol from who is trusted
  trusts   10.0.0.0/8, ::/0, unix: Forwarded
  admin    127.0.0.1:2
  access   a line for each request to stdout, as logfmt
";
        assert!(shown.contains(expect), "{shown}");
        let value: Value = serde_json::from_str(&run(&open, true).0).unwrap();
        let summary = &value["summary"];
        assert_eq!(summary["trusted_proxies"], json!(["10.0.0.0/8", "::/0", "unix"]));
        assert_eq!((&summary["proxy_protocol"], &summary["admin"]), (&json!(true), &json!(["127.0.0.1:2"])));
        assert_eq!(summary["access_log"], "stdout");
    }

    #[test]
    fn says_what_is_paid_how() {
        let token = |network: &str| {
            format!(
                "[[exact.assets]]\nnetwork = \"{network}\"\npay_to = \"0x209693Bc6afc0C5328bA36FaF03C514EF312287C\"\n"
            )
        };
        let route = "[[routes]]\npath = \"/a\"\nprice = \"0.01 USD\"\naccept = [\"exact\", \"deferred\"]\n";
        let shop = |network: &str| {
            format!("[exact]\nsandbox = true\n{}{route}[origin]\nurl = \"http://a.example\"\n", token(network))
        };
        let (shown, code) = run(&shop("base-sepolia"), false);
        assert_eq!(code, 0, "{shown}");
        assert!(shown.contains("\n  SANDBOX  ON: token payments are settled on paper, no money moves\n"), "{shown}");
        assert!(shown.contains("any /a  0.01 USD by exact (USDC on eip155:84532) or deferred\n"), "{shown}");
        let value: Value = serde_json::from_str(&run(&shop("base-sepolia"), true).0).unwrap();
        let accept = &value["summary"]["routes"][0]["accept"];
        assert_eq!((&accept[0]["tokens"][0]["amount"], &accept[1]["scheme"]), (&json!("10000"), &json!("deferred")));
        assert_eq!(value["summary"]["sandbox"], true);
        let (shown, code) = run(&shop("base"), false);
        assert!(code == 2 && shown.contains("`exact.sandbox` settles on paper, and `eip155:8453`"), "{shown}");
        // The same by an option over `false`.
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.toml");
        std::fs::write(&path, shop("base").replace("sandbox = true", "sandbox = false")).unwrap();
        let no = [("TOLLGATE__EXACT__SANDBOX".to_owned(), "false".to_owned())];
        let (shown, code) = check(&path, no.into_iter(), Options { sandbox: true }, false, false);
        assert!(code == 2 && shown.contains("`--sandbox` settles on paper"), "{shown}");
        assert!(shown.contains("or leave `--sandbox` out"), "{shown}");
    }

    #[test]
    fn files_of_keys_that_are_there_must_be_usable() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.toml");
        std::fs::write(&path, format!("[signing]\nkey_file = \"gateway.jwk\"\n{GOOD}")).unwrap();
        let checked = |json| check(&path, std::iter::empty(), Options::default(), json, false);
        // Missing, they are made at the start.
        assert_eq!(checked(false).1, 0);
        std::fs::write(directory.path().join("gateway.jwk"), r#"{"kty":"OKP","d":"s3cret"}"#).unwrap();
        std::fs::write(directory.path().join("tollgate-secret.json"), "[]").unwrap();
        let (shown, code) = checked(false);
        assert_eq!(code, 2);
        assert!(
            shown.contains("error: signing.key_file: ") && shown.contains("error: offers.secret_file: "),
            "{shown}"
        );
        assert!(shown.ends_with("t.toml: 2 files are unusable\n") && !shown.contains("s3cret"), "{shown}");
        let value: Value = serde_json::from_str(&checked(true).0).unwrap();
        assert_eq!((&value["ok"], &value["problems"][1]["key"]), (&json!(false), &json!("signing.key_file")));
    }

    #[test]
    fn says_what_is_wrong() {
        let (shown, code) = run("[server]\ncros = true", false);
        assert_eq!(code, 2);
        assert!(shown.contains("did you mean `cors`?") && shown.ends_with("\n\nt.toml: 2 problems\n"), "{shown}");
        let (shown, code) = run("[server]\ncros = true", true);
        let value: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!((code, &value["ok"], &value["problems"][0]["key"]), (2, &json!(false), &json!("server.cros")));
    }
}
