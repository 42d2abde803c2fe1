//! `tollgate probe URL`: an x402 site as its clients see it.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::Exit;
use super::output::{error, say};
use super::pay::encoded;
use crate::agent::http::{ClientError, Deadlines, HttpClient};
use crate::agent::offer::{self, Offer, OfferError, Way};
use crate::clock::Clock;
use crate::wire::agent_url::AgentUrl;

/// Longest answer that is read.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Where a page in a browser would be from.
const OTHER_ORIGIN: &str = "https://probe.example";
/// Fields that many servers and proxies take at most, together.
const FIELDS_BYTES: usize = 8 * 1024;

/// Look at an x402 site from outside: its offers, and whether browsers, caches and machines get on with them.
///
/// Nothing is paid. Four requests are sent: the page, a preflight for it, `/.well-known/x402` and `/discovery/resources`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tollgate probe https://example.com/articles/1\n  tollgate probe --json URL | jq .checks\n\n\
                        Exit codes: 0 nothing is wrong, 1 something is, 2 bad usage, 3 not reached"
)]
pub struct Probe {
    /// A page that has a price.
    #[arg(value_name = "URL")]
    url: String,
    /// Roots to trust, PEM, instead of the built-in ones.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// Works, but some clients would fare better.
    Hint,
    Bad,
}

/// What was looked at, how it is, and what was seen.
struct Check {
    name: &'static str,
    verdict: Verdict,
    seen: String,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Probe {
    pub(super) fn run(self) -> Exit {
        let deadlines =
            Deadlines { head: Duration::from_secs(30), body_idle: Duration::from_secs(30), ..Deadlines::default() };
        let client = match HttpClient::new(self.ca_file.as_deref()) {
            Ok(client) => client.deadlines(deadlines),
            Err(reason) => {
                error(format_args!("--ca-file {reason}"));
                return Exit::Unusable;
            }
        };
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(failure) => {
                error(failure);
                return Exit::Failed;
            }
        };
        let url = match encoded(&self.url) {
            Ok(url) => url,
            Err(reason) => {
                error(format_args!("`{}`: {reason}", self.url));
                return Exit::Unusable;
            }
        };
        match runtime.block_on(look(client, &url)) {
            Ok(checks) => {
                let bad = checks.iter().any(|check| check.verdict == Verdict::Bad);
                say(&if self.json { as_json(&self.url, &checks) } else { as_text(&self.url, &checks) });
                if bad { Exit::Failed } else { Exit::Done }
            }
            Err(failure @ ClientError::Url(_)) => {
                error(failure);
                Exit::Unusable
            }
            Err(failure) => {
                error(failure);
                Exit::Unreachable
            }
        }
    }
}

fn as_text(url: &str, checks: &[Check]) -> String {
    let mut out = format!("{url}\n");
    for Check { name, verdict, seen } in checks {
        let mark = match verdict {
            Verdict::Good => "good",
            Verdict::Hint => "hint",
            Verdict::Bad => "BAD ",
        };
        out += &format!("  {mark}  {name:<10} {seen}\n");
    }
    out
}

fn as_json(url: &str, checks: &[Check]) -> String {
    let check = |check: &Check| {
        let verdict = match check.verdict {
            Verdict::Good => "good",
            Verdict::Hint => "hint",
            Verdict::Bad => "bad",
        };
        json!({"name": check.name, "verdict": verdict, "seen": check.seen})
    };
    format!("{}\n", json!({"url": url, "checks": checks.iter().map(check).collect::<Vec<_>>()}))
}

async fn ask(client: &HttpClient, method: Method, url: &str, fields: &[(&str, &str)]) -> Result<Answer, ClientError> {
    let mut request = Request::builder().method(method).uri(url).header(header::ORIGIN, OTHER_ORIGIN);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| ClientError::Url(format!("`{url}`: {e}")))?;
    let (head, body) = client.clone().oneshot(request).await?.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|e| ClientError::Broken(e.to_string()))?.to_bytes();
    Ok(Answer { status: head.status, headers: head.headers, body })
}

async fn look(client: HttpClient, url: &str) -> Result<Vec<Check>, ClientError> {
    let page = ask(&client, Method::GET, url, &[("accept", "*/*")]).await?;
    let now = (Clock::system().wall_ms() / 1000).cast_signed();
    let mut checks = vec![status(&page)];
    match offer::read(&page.headers, &page.body, now) {
        Ok(offers) if offers.is_empty() => checks.push(bad("offers", "none")),
        Ok(offers) => {
            checks.push(good("offers", &offers.iter().map(told).collect::<Vec<_>>().join("; ")));
            checks.push(resource(url, &offers));
        }
        Err(why @ (OfferError::OtherSchemes(_) | OfferError::NoMeans(_))) => {
            checks.push(hint("offers", &why.to_string()))
        }
        Err(why) => checks.push(bad("offers", &why.to_string())),
    }
    checks.push(cache(&page.headers));
    checks.push(cors(&page.headers));
    checks.push(size(&page.headers));
    let wanted = [("access-control-request-method", "GET"), ("access-control-request-headers", "payment-signature")];
    let preflight = ask(&client, Method::OPTIONS, url, &wanted).await?;
    checks.push(preflight_of(&preflight));
    let site = url.split_inclusive('/').take(3).collect::<String>();
    for (name, path) in [("listed", ".well-known/x402"), ("catalogue", "discovery/resources")] {
        let document = ask(&client, Method::GET, &format!("{}/{path}", site.trim_end_matches('/')), &[]).await?;
        checks.push(listed(name, path, &document));
    }
    Ok(checks)
}

fn good(name: &'static str, seen: &str) -> Check {
    Check { name, verdict: Verdict::Good, seen: seen.to_owned() }
}

fn hint(name: &'static str, seen: &str) -> Check {
    Check { name, verdict: Verdict::Hint, seen: seen.to_owned() }
}

fn bad(name: &'static str, seen: &str) -> Check {
    Check { name, verdict: Verdict::Bad, seen: seen.to_owned() }
}

fn status(page: &Answer) -> Check {
    match page.status {
        StatusCode::PAYMENT_REQUIRED => good("status", "402"),
        status if status.is_success() => bad("status", &format!("{status}: the page has no price for this client")),
        status => bad("status", &status.to_string()),
    }
}

fn told(offer: &Offer) -> String {
    let scheme = match &offer.way {
        Way::Deferred { .. } => "deferred",
        Way::Exact(_) => "exact",
    };
    format!("{} by {scheme} on {}", offer.price, offer.network)
}

/// An offer for another resource than the one that was asked for is refused by careful clients.
fn resource(url: &str, offers: &[Offer]) -> Check {
    let asked = AgentUrl::parse(&url.split_inclusive('/').take(3).collect::<String>()).ok();
    let other = offers
        .iter()
        .filter_map(|offer| offer.resource.as_deref())
        .find(|named| AgentUrl::parse(&named.split_inclusive('/').take(3).collect::<String>()).ok() != asked);
    match other {
        None => good("resource", "the offers are for the site that was asked"),
        Some(named) => bad("resource", &format!("an offer is for {named}; behind a proxy, set the site's public URL")),
    }
}

fn cache(headers: &HeaderMap) -> Check {
    let control: Vec<&str> = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok()).collect();
    let control = control.join(", ");
    if ["no-store", "private"].iter().any(|word| control.contains(word)) {
        good("cache", &control)
    } else {
        bad("cache", &format!("Cache-Control is `{control}`: a shared cache may give one client's offer to another"))
    }
}

fn cors(headers: &HeaderMap) -> Check {
    let of = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let allowed = of("access-control-allow-origin");
    if allowed != "*" && allowed != OTHER_ORIGIN {
        return hint("cors", "pages of other sites can't read the offer: no Access-Control-Allow-Origin");
    }
    let exposed = of("access-control-expose-headers");
    if exposed.contains("payment-required") || exposed == "*" || !headers.contains_key("payment-required") {
        good("cors", "pages of other sites can read the offer")
    } else {
        hint("cors", "pages of other sites can't read PAYMENT-REQUIRED: Access-Control-Expose-Headers does not name it")
    }
}

fn size(headers: &HeaderMap) -> Check {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes <= FIELDS_BYTES {
        good("size", &format!("{bytes} bytes of fields"))
    } else {
        hint("size", &format!("{bytes} bytes of fields; many clients and proxies take at most {FIELDS_BYTES}"))
    }
}

fn preflight_of(answer: &Answer) -> Check {
    let of =
        |name: &str| answer.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    if answer.status == StatusCode::PAYMENT_REQUIRED {
        return bad("preflight", "a preflight costs money: no browser can pay for it");
    }
    let fields = of("access-control-allow-headers");
    if answer.status.is_success() && (fields.contains("payment-signature") || fields == "*") {
        good("preflight", "payments from pages of other sites are allowed")
    } else {
        hint("preflight", &format!("{}: payments from pages of other sites are not allowed", answer.status))
    }
}

fn listed(name: &'static str, path: &str, document: &Answer) -> Check {
    match serde_json::from_slice::<Value>(&document.body) {
        Ok(value) if document.status.is_success() && value.is_object() => {
            let count = ["resources", "items"].iter().find_map(|member| value[*member].as_array()).map(Vec::len);
            good(name, &count.map_or_else(|| format!("/{path}"), |count| format!("/{path}: {count} resources")))
        }
        _ => hint(name, &format!("/{path} is not there ({})", document.status)),
    }
}
