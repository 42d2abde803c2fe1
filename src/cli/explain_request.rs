//! `tollgate explain-request`: a captured request, its payment and its signatures step by step.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;

use super::Exit;
use super::output::{error, say};
use crate::clock::Clock;
use crate::payment::id::SealedId;
use crate::payment::presented::{Presented, presented};
use crate::wire::directory::Directory;
use crate::wire::host::normal_host;
use crate::wire::jwk::{Jwk, PublicKey};
use crate::wire::signature::{LabelledSignature, RequestView, field};
use crate::wire::signature_agent::covered_agent;

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Keys of a directory's file.
const KEYS_MAX: usize = 1000;
/// What times may differ by, seconds; `identity.skew_seconds` by default.
const SKEW: i64 = 30;
/// The widest window that any payment may have, seconds.
const WINDOW: i64 = 86_400;

/// Show what a captured request says: its payment, and for each signature what was signed and whether it holds.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "FILE holds the request as it was sent, from its request line to the empty line; a body behind it is not read.\n\
                  KEY is a public JWK, or a key directory as an agent serves it.\n\n\
                  Examples:\n  tollgate explain-request request.txt --key directory.json --scheme https\n  \
                  curl -sv … 2>&1 | sed -n 's/^> //p' | tollgate explain-request -\n\n\
                  Exit codes: 0 every signature holds (or could not be checked for want of a key), 1 one does not, 2 no request"
)]
pub struct ExplainRequest {
    /// The request; `-` for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The agent's keys.
    #[arg(long, value_name = "KEY")]
    key: Option<PathBuf>,
    /// How the client reached the site: what `@scheme` and `@target-uri` say.
    #[arg(long, value_name = "http|https", default_value = "https", value_parser = ["http", "https"])]
    scheme: String,
    /// Judge the times as of then, Unix seconds; now by default.
    #[arg(long, value_name = "SECONDS")]
    at: Option<i64>,
}

impl ExplainRequest {
    pub(super) fn run(self) -> Exit {
        let explained = self.read().and_then(|(text, keys)| {
            let request = Captured::parse(&text)?;
            let now = self.at.unwrap_or_else(|| (Clock::system().wall_ms() / 1000).cast_signed());
            Ok(explain(&request, &self.scheme, &keys, now))
        });
        match explained {
            Ok((text, holds)) => {
                say(&text);
                if holds { Exit::Done } else { Exit::Failed }
            }
            Err(why) => {
                error(why);
                Exit::Unusable
            }
        }
    }

    fn read(&self) -> Result<(String, Vec<PublicKey>), String> {
        let read = |path: &PathBuf| {
            let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
            let bytes = if path.as_os_str() == "-" {
                use std::io::Read as _;
                let mut bytes = Vec::new();
                std::io::stdin().take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|e| failed(&e))?;
                bytes
            } else {
                if fs::metadata(path).is_ok_and(|meta| meta.len() > FILE_BYTES_MAX) {
                    return Err(failed(&format_args!("more than {FILE_BYTES_MAX} bytes")));
                }
                fs::read(path).map_err(|e| failed(&e))?
            };
            // Only the head is read, and heads that matter are ASCII; a body may be anything.
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let keys = match &self.key {
            None => Vec::new(),
            Some(path) => keys(&read(path)?).map_err(|why| format!("{}: {why}", path.display()))?,
        };
        Ok((read(&self.file)?, keys))
    }
}

/// A public JWK, or a directory.
fn keys(text: &str) -> Result<Vec<PublicKey>, String> {
    let expected = "expected a public JWK or a key directory";
    if let Ok(jwk) = serde_json::from_str::<Jwk>(text) {
        if jwk.d.is_some() {
            let help = "print its public half with `tollgate directory --key FILE --print`";
            return Err(format!("this is a private key, which nobody else should see; {help}"));
        }
        return Ok(vec![jwk.public_key(true).map_err(|e| e.to_string())?]);
    }
    let directory =
        Directory::parse(text.as_bytes(), KEYS_MAX, true, |_, _| {}).map_err(|e| format!("{expected}: {e}"))?;
    Ok(directory.into_iter().map(|key| key.public).collect())
}

/// A request's head.
struct Captured {
    method: String,
    target: String,
    headers: HeaderMap,
}

impl Captured {
    fn parse(text: &str) -> Result<Captured, String> {
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let mut words = first.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(format!(
                "expected a request line such as `GET /path HTTP/1.1`, found `{}`",
                first.escape_debug()
            ));
        };
        if !version.starts_with("HTTP/") {
            return Err(format!(
                "expected `HTTP/1.1` at the end of the request line, found `{}`",
                version.escape_debug()
            ));
        }
        let mut headers = HeaderMap::new();
        for (number, line) in lines.take_while(|line| !line.is_empty()).enumerate() {
            let wrong = |why: &str| format!("line {}: {why}: `{}`", number + 2, line.escape_debug());
            let (name, value) = line.split_once(':').ok_or_else(|| wrong("no `:` after a field's name"))?;
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("no field has such a name"))?;
            let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong("no field has such a value"))?;
            headers.append(name, value);
        }
        Ok(Captured { method: method.to_owned(), target: target.to_owned(), headers })
    }

    /// `example.com`, without the scheme's port.
    fn authority(&self, scheme: &str) -> Result<String, String> {
        let in_target = self.target.split_once("://").map(|(_, rest)| rest.split(['/', '?']).next().unwrap_or(rest));
        let host = self.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
        let named = in_target.or(host).ok_or("the request has no `Host`")?;
        let (name, port) = match named.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, Some(port)),
            _ => (named, None),
        };
        let name = normal_host(name).map_err(|(why, _)| format!("`Host` is none: {why}"))?;
        let default = if scheme == "https" { "443" } else { "80" };
        Ok(port.filter(|port| *port != default).map_or(name.clone(), |port| format!("{name}:{port}")))
    }

    fn path_and_query(&self) -> (&str, Option<&str>) {
        let local = match self.target.split_once("://") {
            Some((_, rest)) => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
            None => &self.target,
        };
        match local.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (local, None),
        }
    }
}

/// What there is to say, and whether nothing is wrong.
fn explain(request: &Captured, scheme: &str, keys: &[PublicKey], now: i64) -> (String, bool) {
    let mut out = format!("request     {} {}\n", request.method, request.target);
    let authority = match request.authority(scheme) {
        Ok(authority) => authority,
        Err(why) => return (out + &format!("authority   WRONG: {why}\n"), false),
    };
    out += &format!("authority   {authority} ({scheme})\n");
    let mut holds = payment(&request.headers, now, &mut out);
    let signatures = match LabelledSignature::parse_all(&request.headers, true) {
        Ok(signatures) => signatures,
        Err(why) => {
            out += &format!("signatures  none that can be read: {why}\n");
            return (out, holds && !request.headers.contains_key("signature"));
        }
    };
    let (path, query) = request.path_and_query();
    let view =
        RequestView { method: &request.method, scheme, authority: &authority, path, query, headers: &request.headers };
    for signature in &signatures {
        holds &= one(signature, &view, keys, now, &mut out);
    }
    (out, holds)
}

fn payment(headers: &HeaderMap, now: i64, out: &mut String) -> bool {
    let (text, holds) = match presented(headers) {
        Ok(Presented::Nothing) => ("none".to_owned(), true),
        Ok(Presented::Payment(payment)) => {
            let id = match SealedId::parse(&payment.id) {
                None => "not in the form of this gateway's ids".to_owned(),
                Some(id) => {
                    let age = now - (id.time_ms() / 1000).cast_signed();
                    format!(
                        "sealed {age} s ago, for {} ledger units; its seal is for the gateway to check",
                        id.amount_units()
                    )
                }
            };
            (
                format!("scheme {}, network {}, id {}\n            {id}", payment.scheme, payment.network, payment.id),
                true,
            )
        }
        Ok(Presented::X402(_)) => ("a payload of x402, which a facilitator verifies".to_owned(), true),
        Ok(Presented::Crawl(bid)) => (format!("pay per crawl: {bid:?}"), true),
        Err(refusal) => (format!("WRONG: {} ({})", refusal.detail, refusal.reason.code()), false),
    };
    *out += &format!("payment     {text}\n");
    holds
}

/// One signature; false if something is wrong with it.
fn one(signature: &LabelledSignature, view: &RequestView<'_>, keys: &[PublicKey], now: i64, out: &mut String) -> bool {
    let mut holds = true;
    let mut say = |name: &str, text: Result<String, String>| {
        let text = text.unwrap_or_else(|why| {
            holds = false;
            format!("WRONG: {why}")
        });
        *out += &format!("  {name:<10}{text}\n");
    };
    let params = &signature.params;
    let covers: Vec<String> = signature.components.iter().map(|component| component.identifier()).collect();
    say("label", Ok(signature.label.clone()));
    say("covers", Ok(covers.join(" ")));
    let moment = |seconds: Option<i64>| match seconds {
        None => "none".to_owned(),
        Some(s) => format!("{s} ({})", Timestamp::from_second(s).map_or_else(|_| "no date".into(), |t| t.to_string())),
    };
    say("created", Ok(moment(params.created)));
    say("expires", Ok(moment(params.expires)));
    say("times", signature.params.check_times(now, SKEW, WINDOW).map(|()| format!("hold at {now}")));
    say("tag", Ok(params.tag.clone().unwrap_or_else(|| "none; payments want \"web-bot-auth\"".to_owned())));
    let agent = field(view.headers, &HeaderName::from_static("signature-agent"));
    say(
        "agent",
        match agent {
            Err(why) => Err(why.to_string()),
            Ok(None) => Err("`Signature-Agent` is missing".to_owned()),
            Ok(Some(value)) => {
                covered_agent(signature, &value).map(|agent| agent.to_string()).map_err(|why| why.to_string())
            }
        },
    );
    let keyid = params.keyid.as_deref();
    say("keyid", keyid.map(str::to_owned).ok_or_else(|| "none".to_owned()));
    say("signature", Ok(format!("{} bytes, {}", signature.signature.len(), STANDARD.encode(&signature.signature))));
    let base = signature.base(view).map_err(|why| why.to_string());
    let verdict = base.as_ref().map_err(|_| "there is no base to verify over".to_owned()).and_then(|base| {
        if keys.is_empty() {
            return Ok("not checked: name the agent's keys with --key".to_owned());
        }
        let key = keys.iter().find(|key| Some(key.thumbprint()) == keyid);
        let key = key.ok_or_else(|| {
            let there: Vec<&str> = keys.iter().map(PublicKey::thumbprint).collect();
            format!("--key has no key of this name, but {}", there.join(", "))
        })?;
        if params.alg.as_deref().is_some_and(|alg| alg != key.algorithm().name()) {
            return Err(format!("`alg` names another algorithm than the key's, {}", key.algorithm().name()));
        }
        if key.verifies(base.as_bytes(), &signature.signature) {
            Ok(format!("holds ({})", key.algorithm().name()))
        } else {
            Err("it does not verify over this base: what was signed differs from what arrived".to_owned())
        }
    });
    match &base {
        Ok(base) => {
            say("base", Ok(String::new()));
            base.lines().for_each(|line| say("", Ok(format!("| {line}"))));
        }
        Err(why) => say("base", Err(why.clone())),
    }
    say("verdict", verdict);
    holds
}
