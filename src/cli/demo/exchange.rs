//! Two payments, told as they happen: a commitment here, a token transfer in [`super::token`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use serde_json::Value;
use tower::Service as _;

use crate::agent::http::{Deadlines, HttpClient};
use crate::agent::layer::Target;
use crate::agent::{Agent, Wallet, offer};
use crate::cli::ledger::listing;
use crate::cli::output::{Paint, say};
use crate::clock::Clock;
use crate::ledger::read::{Filter, LedgerReader, Listed, State};

/// The agent's account.
pub(super) const ACCOUNT: &str = "demo-agent";
/// The page that is bought.
const PAGE: &str = "/articles/1";
/// Largest answer that is read.
const ANSWER_MAX: usize = 1024 * 1024;
/// How much of the page is shown.
const LINES_SHOWN: usize = 5;
/// How long the books may take to say what became of the answer.
const OUTCOME_WAIT: Duration = Duration::from_secs(5);

/// Who plays.
pub(super) struct Stage {
    pub(super) site: SocketAddr,
    pub(super) gateway: SocketAddr,
    pub(super) agent: Agent,
    pub(super) wallet: Wallet,
    pub(super) ledger: PathBuf,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Buys a page on credit and an API call with a token, and tells of it on standard output.
///
/// # Errors
/// Says what went otherwise than it must.
pub(super) fn show(stage: &Stage, paint: Paint) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|failure| failure.to_string())?;
    runtime.block_on(async {
        play(stage, paint).await?;
        super::token::play(stage, paint).await
    })
}

async fn play(stage: &Stage, paint: Paint) -> Result<(), String> {
    let Stage { site, gateway, agent, .. } = stage;
    let agent_url = agent.url().to_string();
    say(&format!(
        "{}\n\n  site     http://{site}   a small magazine; it knows nothing of prices\n  \
         gateway  http://{gateway}   0.01 USD an article, 0.001 USD an API call, the index is free\n  \
         agent    {agent_url}   its key directory; thumbprint {}\n",
        paint.bold("A website that charges agents, and an agent that pays. Nothing leaves this machine."),
        agent.thumbprint()
    ));

    say(&format!("\n{}\n\n", paint.bold("1  The agent reads the index, which is free.")));
    let free = ask(stage, "/", &HeaderMap::new(), paint).await?;
    expect(&free, 200)?;
    say(&head(&free, &["content-type"], paint));

    say(&format!("\n{}\n\n", paint.bold("2  It asks for an article. The gateway offers it for a price.")));
    let unpaid = ask(stage, PAGE, &HeaderMap::new(), paint).await?;
    expect(&unpaid, 402)?;
    say(&head(&unpaid, &["content-type", "cache-control", "tollgate-reason"], paint));
    let body: Value =
        serde_json::from_slice(&unpaid.body).map_err(|error| format!("the offer is not JSON: {error}"))?;
    say(&indented(&format!("{body:#}"), &paint.dim("<"), usize::MAX));

    say(&format!("\n{}\n\n", paint.bold("3  It signs the offer's id and asks again.")));
    let now = (Clock::system().now_ms() / 1000).cast_signed();
    let offers = offer::read(&unpaid.headers, &unpaid.body, now).map_err(|error| error.to_string())?;
    let offer = offers.first().ok_or("the 402 has no offer")?;
    let (request, ()) = request(stage, PAGE, ())?.into_parts();
    let target = Target::of(&request)?;
    let payment = agent.sign(&target.view(&request), offer, now, None).map_err(|error| error.to_string())?;
    let fields = HeaderMap::from_iter(payment.fields);
    let paid = ask(stage, PAGE, &fields, paint).await?;

    say(&format!("\n{}\n\n", paint.bold("4  The gateway verifies, writes the books, and lets the page through.")));
    say(&head(&paid, &["content-type", "cache-control", "payment-response", "tollgate-reason"], paint));
    say(&indented(&String::from_utf8_lossy(&paid.body), &paint.dim("<"), LINES_SHOWN));
    expect(&paid, 200)?;
    if !paid.headers.contains_key("payment-response") {
        return Err("the page came without Payment-Response".to_owned());
    }

    let rows = books(stage, ACCOUNT).await?;
    say(&format!("\n{}\n\n", paint.bold("5  The books have a row, on disk since before the page left.")));
    say(&listing(&rows, paint));
    match &rows[..] {
        [row] if row.amount == offer.price.units.get() && row.agent == agent_url => Ok(()),
        _ => Err("the books do not have the one row that they must".to_owned()),
    }
}

/// Longest value of a field that is shown whole.
const VALUE_SHOWN: usize = 240;

/// Sends a GET and shows it.
pub(super) async fn ask(stage: &Stage, path: &str, fields: &HeaderMap, paint: Paint) -> Result<Answer, String> {
    let mut shown = format!("GET {path} HTTP/1.1\nHost: {}\n", stage.gateway);
    for (name, value) in fields {
        let value = value.to_str().unwrap_or_default();
        let (value, more) = match value.get(..VALUE_SHOWN) {
            Some(start) if value.len() > VALUE_SHOWN => (&start[..60], "…"),
            _ => (value, ""),
        };
        shown += &format!("{}: {value}{more}\n", title(name.as_str()));
    }
    say(&indented(&shown, &paint.yellow(">"), usize::MAX));
    let mut request = request(stage, path, Full::<Bytes>::default())?;
    request.headers_mut().extend(fields.clone());
    let seconds = Duration::from_secs;
    let deadlines = Deadlines { connect: seconds(5), head: seconds(30), body_idle: seconds(30) };
    let answer = HttpClient::new(None)?.deadlines(deadlines).call(request).await.map_err(|error| error.to_string())?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok(Answer { status: head.status, headers: head.headers, body })
}

fn request<B>(stage: &Stage, path: &str, body: B) -> Result<Request<B>, String> {
    let request = Request::get(format!("http://{}{path}", stage.gateway));
    request.header(header::ACCEPT, "text/html").body(body).map_err(|error| error.to_string())
}

pub(super) fn expect(answer: &Answer, status: u16) -> Result<(), String> {
    if answer.status.as_u16() == status {
        return Ok(());
    }
    let body = String::from_utf8_lossy(&answer.body);
    Err(format!("expected status {status}, got {}: {}", answer.status, body.chars().take(500).collect::<String>()))
}

/// The row of the payment, once it says what became of the answer.
pub(super) async fn books(stage: &Stage, account: &str) -> Result<Vec<Listed>, String> {
    let reader = LedgerReader::open(&stage.ledger).map_err(|error| error.to_string())?;
    let filter = Filter { limit: 10, account: Some(account.to_owned()), ..Filter::default() };
    let until = Instant::now() + OUTCOME_WAIT;
    loop {
        let rows = reader.list(&filter).map_err(|error| error.to_string())?;
        let known = rows.iter().any(|row| row.fate.is_some_and(|fate| fate.state() == State::Delivered));
        if known || Instant::now() > until {
            return Ok(rows);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Status line and the fields that matter here.
pub(super) fn head(answer: &Answer, names: &[&str], paint: Paint) -> String {
    let status = format!("HTTP/1.1 {}", answer.status);
    let status = match answer.status.as_u16() {
        200..300 => paint.green(&status),
        402 => paint.yellow(&status),
        _ => paint.red(&status),
    };
    let mut text = format!("{status}\n");
    for name in names {
        if let Some(value) = answer.headers.get(*name) {
            text += &format!("{}: {}\n", title(name), String::from_utf8_lossy(value.as_bytes()));
        }
    }
    indented(&text, &paint.dim("<"), usize::MAX)
}

/// Lines behind a mark; those beyond `max` are counted.
pub(super) fn indented(text: &str, mark: &str, max: usize) -> String {
    let lines = text.lines().count();
    let mut shown: String = text.lines().take(max).map(|line| format!("   {mark} {line}\n")).collect();
    if lines > max {
        shown += &format!("   {mark} … {} more lines\n", lines - max);
    }
    shown
}

/// `payment-response` as people write it: `Payment-Response`.
fn title(name: &str) -> String {
    let word = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    name.split('-').map(|part| if part.is_empty() { String::new() } else { word(part) }).collect::<Vec<_>>().join("-")
}
