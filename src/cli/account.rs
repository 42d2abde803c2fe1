//! `tollgate account`: what a gateway's books say of an agent, and its objections.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::output::{Paint, error, note, say, table};
use super::{Exit, keygen};
use crate::agent::Agent;
use crate::agent::http::{ClientError, Deadlines, HttpClient};
use crate::agent::layer::Target;
use crate::agent::offer::shortened;
use crate::clock::Clock;
use crate::wire::agent_url::AgentUrl;

/// Where a gateway has it.
const PATH: &str = "/.well-known/tollgate/account";
/// Longest answer that is read.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Pages that are asked for, however few entries they have.
const PAGES_MAX: usize = 1000;

/// Show what you have bought from a site and what you owe it, or dispute a charge.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The site must run Tollgate, and have an account for the agent. Any URL of it will do.

Examples:
  tollgate account --key agent.jwk --agent https://signer.example.com https://example.com
  tollgate account --key agent.jwk --agent https://signer.example.com https://example.com \\
    --dispute 281474976710657 --reason \"the page was empty\"

A charge is disputed once, however often it is asked for. What became of it stands in the list.

With --json one object: account, agent, limits, entries, statements, next; or of a dispute entry, n, number, state, posted.

Exit codes:
  0 done   1 failed (5xx, or no answer that can be read)   2 bad usage   3 unreachable
  4 refused (4xx)   5 the site has no such page, or the account no such entry")]
pub struct Account {
    /// The site.
    #[arg(value_name = "URL", value_parser = super::pay::url)]
    url: Uri,
    /// The agent's private key, as `tollgate keygen` writes it.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The agent's origin, whose directory has the key; or the URL of its key set.
    #[arg(long, value_name = "URL", value_parser = AgentUrl::parse_agent)]
    agent: AgentUrl,
    /// At most so many entries, latest first.
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    limit: u64,
    /// Contest this charge.
    #[arg(long, value_name = "ENTRY", requires = "reason", conflicts_with = "limit")]
    dispute: Option<String>,
    /// Why, for the operator: a line of text.
    #[arg(long, value_name = "TEXT", requires = "dispute")]
    reason: Option<String>,
    /// PEM roots that replace the built-in ones.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Why it did not come to an end, with the exit code.
struct Failure(Exit, String);

impl Account {
    pub(super) fn run(self) -> Exit {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let ended = match runtime {
            Ok(runtime) => runtime.block_on(self.ask()),
            Err(failure) => Err(Failure(Exit::Failed, failure.to_string())),
        };
        match ended {
            Ok(()) => Exit::Done,
            Err(Failure(exit, reason)) => {
                error(reason);
                exit
            }
        }
    }

    async fn ask(&self) -> Result<(), Failure> {
        let usage = |reason: String| Failure(Exit::Unusable, reason);
        let seconds = Duration::from_secs;
        let deadlines = Deadlines { head: seconds(30), body_idle: seconds(30), ..Deadlines::default() };
        let client = HttpClient::new(self.ca_file.as_deref()).map_err(|reason| usage(format!("--ca-file {reason}")))?;
        let agent = Agent::new(self.agent.clone(), keygen::read_private(&self.key).map_err(usage)?);
        let site = Site { client: client.deadlines(deadlines), agent, url: &self.url };
        if let Some(entry) = &self.dispute {
            let order = json!({"entry": entry, "reason": self.reason}).to_string();
            let done = site.send(PATH, Some(order.into())).await?;
            say(&if self.json { format!("{done}\n") } else { disputed(&done) });
            return Ok(());
        }
        let account = site.account(self.limit as usize).await?;
        say(&if self.json { format!("{account}\n") } else { shown(&account) });
        if !self.json && !account["next"].is_null() {
            note("there may be more; say --limit COUNT");
        }
        Ok(())
    }
}

/// Whom an agent asks.
struct Site<'a> {
    client: HttpClient,
    agent: Agent,
    url: &'a Uri,
}

impl Site<'_> {
    /// The account with so many entries, of as many pages as it takes.
    async fn account(&self, limit: usize) -> Result<Value, Failure> {
        let page = |path: &str, more: usize| {
            let join = if path.contains('?') { '&' } else { '?' };
            format!("{path}{join}limit={}", more.min(100))
        };
        let mut account = self.send(&page(PATH, limit), None).await?;
        let mut entries = taken(&mut account);
        for _ in 1..PAGES_MAX {
            let next = account["next"].as_str().unwrap_or_default().to_owned();
            // Not to where it likes: what is signed is for this page alone.
            if entries.len() >= limit || !next.starts_with(&format!("{PATH}?")) {
                break;
            }
            let mut more = self.send(&page(&next, limit - entries.len()), None).await?;
            entries.append(&mut taken(&mut more));
            account["next"] = more["next"].take();
        }
        account["entries"] = entries.into();
        Ok(account)
    }

    /// A signed GET, or a POST of a body.
    async fn send(&self, path: &str, body: Option<Bytes>) -> Result<Value, Failure> {
        let failed = |reason: String| Failure(Exit::Failed, reason);
        let (scheme, authority) = (self.url.scheme_str().unwrap_or_default(), self.url.authority());
        let uri = format!("{scheme}://{}{path}", authority.map_or("", |authority| authority.as_str()));
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let request = Request::builder().method(method).uri(uri);
        let request = request.body(Full::new(body.clone().unwrap_or_default()));
        let mut request = request.map_err(|error| Failure(Exit::Unusable, error.to_string()))?;
        if body.is_some() {
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let (mut head, content) = request.into_parts();
        let target = Target::of(&head).map_err(|reason| Failure(Exit::Unusable, reason))?;
        let now = (Clock::system().now_ms() / 1000).cast_signed();
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| failed(error.to_string()))?;
        let nonce: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let fields = self.agent.sign_itself(&target.view(&head), body.as_deref(), now, Some(&nonce));
        head.headers.extend(fields.map_err(|error| failed(error.to_string()))?);
        let answer = self.client.clone().oneshot(Request::from_parts(head, content)).await.map_err(|error| {
            let exit = match error {
                ClientError::Url(_) => Exit::Unusable,
                ClientError::Unreachable { .. } => Exit::Unreachable,
                ClientError::Late(_) | ClientError::Broken(_) => Exit::Failed,
            };
            Failure(exit, error.to_string())
        })?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|error| failed(format!("the answer can't be read: {error}")))?.to_bytes();
        let value: Option<Value> = serde_json::from_slice(&body).ok();
        if head.status == StatusCode::OK {
            return value.ok_or_else(|| failed("the answer is no JSON: this is not a Tollgate's".to_owned()));
        }
        let of = |name: &str| value.as_ref()?.get(name)?.as_str().map(shortened);
        let exit = match head.status.as_u16() {
            404 | 410 => Exit::NotFound,
            400..500 => Exit::Refused,
            _ => Exit::Failed,
        };
        let said = [of("error"), of("message"), of("advice")].into_iter().flatten().collect::<Vec<_>>().join(": ");
        let url = of("registrationUrl").map(|url| format!(" ({url})")).unwrap_or_default();
        Err(Failure(exit, format!("{}: {said}{url}", head.status).trim_end_matches(": ").to_owned()))
    }
}

fn taken(page: &mut Value) -> Vec<Value> {
    match page["entries"].take() {
        Value::Array(entries) => entries,
        _ => Vec::new(),
    }
}

fn text(of: &Value, name: &str) -> String {
    match &of[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => shortened(text),
        other => shortened(&other.to_string()),
    }
}

fn disputed(done: &Value) -> String {
    let was = if done["posted"] == true { "" } else { "; it was before" };
    let (number, entry) = (text(done, "number"), text(done, "entry"));
    format!("dispute {number} of entry {entry} is {}{was} (entry {})\n", text(done, "state"), text(done, "n"))
}

fn shown(account: &Value) -> String {
    let list = |name: &str| account[name].as_array().cloned().unwrap_or_default();
    let paint = Paint::stdout();
    let blocked = if account["blocked"] == true { ", blocked" } else { "" };
    let mut out = format!("account {}{blocked}, agent {}\n", text(account, "account"), text(account, "agent"));
    for limit in list("limits") {
        let of = |name| text(&limit, name);
        if limit["limit"].is_null() {
            out += &format!("{} left of the balance\n", of("left"));
            continue;
        }
        out += &format!(
            "{} of {} used in this {}, {} left until {}\n",
            of("used"),
            of("limit"),
            of("period"),
            of("left"),
            of("ends")
        );
    }
    let rows = |title: &[&str], rows: Vec<Vec<String>>| {
        let mut cells = vec![title.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
        cells.extend(rows);
        let text = table(&cells);
        text.split_once('\n').map_or_else(String::new, |(head, rest)| format!("\n{}\n{rest}", paint.bold(head)))
    };
    let entry = |entry: &Value| {
        let of = |name| text(entry, name);
        let dispute = entry["dispute"].as_str().map(|state| format!(", dispute {}", shortened(state)));
        let what = if entry["method"].is_null() {
            format!("of {}", of("of"))
        } else {
            format!("{} {}", of("method"), of("target"))
        };
        vec![
            of("n"),
            of("at"),
            of("kind"),
            of("amount"),
            format!("{}{}", of("state"), dispute.unwrap_or_default()),
            what,
        ]
    };
    let entries = list("entries");
    if entries.is_empty() {
        out += "\nnothing was bought yet\n";
    } else {
        let title = ["ENTRY", "TIME", "KIND", "AMOUNT", "STATE", "REQUEST"];
        out += &rows(&title, entries.iter().map(entry).collect());
    }
    let statements = list("statements");
    if !statements.is_empty() {
        let line = |s: &Value| {
            ["number", "from", "until", "gross", "corrections", "total", "state"].map(|n| text(s, n)).to_vec()
        };
        let title = ["STATEMENT", "FROM", "UNTIL", "GROSS", "CORRECTIONS", "TOTAL", "STATE"];
        out += &rows(&title, statements.iter().map(line).collect());
    }
    out
}
