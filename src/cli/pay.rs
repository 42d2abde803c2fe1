//! `tollgate pay`: a client that pays.

mod transcript;

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, Service as _, ServiceExt as _};

use self::transcript::Transcript;
use super::output::error;
use super::{Exit, keygen};
use crate::agent::http::{AnswerBody, ClientError, HttpClient};
use crate::agent::layer::{Paid, Target, read_offers};
use crate::agent::{Agent, Budget, Means, Offer, PayError, PayLayer};
use crate::clock::Clock;
use crate::wire::agent_url::AgentUrl;
use crate::wire::amount::Money;

/// Request a page, and pay for it if it has a price.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The page goes to standard output, what happens on the way to standard error. No more than --max is paid, and one
request never pays twice: when an answer gets lost, or the server says with 503 that it can't tell yet (payment_in_flight,
directory_unavailable, ledger_unavailable, overloaded), the same payment is sent again: three times at most, after 0.25,
0.5 and 1 s or as long as Retry-After says (30 s at most), and not after the offer has ended. A server may take 10 s to be
connected to, 90 s to begin an answer, and be silent for 300 s inside one; --timeout bounds all of it together.

With --key and --agent it pays by `deferred`, with --wallet by `exact` in tokens whose worth is known (USDC, EURC), with
all three by what the server offers first.

Examples:
  tollgate pay --dry-run https://example.com/articles/1
  tollgate pay --key agent.jwk --agent https://signer.example.com https://example.com/articles/1
  tollgate pay --wallet wallet.key https://example.com/articles/1
  tollgate pay --key agent.jwk --agent https://signer.example.com --max '0.05 USD' -o page.html https://example.com/articles/1
  tollgate pay --key agent.jwk --agent https://signer.example.com -d @question.json -H 'Content-Type: application/json' https://example.com/api

With --json the page goes to -o FILE or nowhere, and standard output gets one object:
  status, offer {scheme, price, network, id, …}, payment {scheme, network, id or payer and nonce},
  receipt {…, timestamp} or {success, transaction, …}, bytes, error

Exit codes:
  0 got it   1 failed (5xx, or the answer was lost)   2 bad usage   3 unreachable
  4 refused (4xx), or over --max   5 not found (404, 410)")]
pub struct Pay {
    /// What to request.
    #[arg(value_name = "URL", value_parser = url)]
    url: Uri,
    /// The method; GET, or POST with -d.
    #[arg(short = 'X', long, value_name = "METHOD")]
    request: Option<Method>,
    /// A header field, `Name: value`; repeatable.
    #[arg(short = 'H', long, value_name = "FIELD", value_parser = field)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// The body: text, @FILE, or @- for standard input.
    #[arg(short, long, value_name = "DATA")]
    data: Option<String>,
    /// Write the body there instead of to standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write status and fields before the body.
    #[arg(short, long)]
    include: bool,
    /// The agent's private key, as `tollgate keygen` writes it.
    #[arg(long, value_name = "FILE", requires = "agent")]
    key: Option<PathBuf>,
    /// The agent's origin, whose directory has the key; or the URL of its key set.
    #[arg(long, value_name = "URL", requires = "key", value_parser = AgentUrl::parse_agent)]
    agent: Option<AgentUrl>,
    /// A wallet's private key: hex, or JSON with `privateKey`; `tollgate keygen --wallet` makes one.
    #[arg(long, value_name = "FILE")]
    wallet: Option<PathBuf>,
    /// The most that this request may cost; repeat it for other currencies.
    #[arg(long, value_name = "AMOUNT", default_value = "0.10 USD", value_parser = Money::parse)]
    max: Vec<Money>,
    /// Show the offer, pay nothing.
    #[arg(long)]
    dry_run: bool,
    /// PEM roots that replace the built-in ones.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The most that all of it may take, tries and waits included; 300 s of silence end an answer anyway.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86400))]
    timeout: Option<u64>,
    /// Print one JSON object instead of the body.
    #[arg(long)]
    json: bool,
    /// Also show what is signed and sent.
    #[arg(short, long)]
    verbose: bool,
    /// Show errors only.
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
}

/// Why it did not come to an end, with the exit code.
struct Failure(Exit, String);

impl Pay {
    pub(super) fn run(self) -> Exit {
        let transcript = Arc::new(Transcript::new(self.quiet, self.verbose));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let ended = match runtime {
            Ok(runtime) => runtime.block_on(self.exchange_in_time(&transcript)),
            Err(failure) => Err(Failure(Exit::Failed, failure.to_string())),
        };
        let (exit, text) = match ended {
            Ok(exit) => (exit, None),
            Err(Failure(exit, text)) => (exit, Some(text)),
        };
        if self.json {
            super::output::say(&format!("{}\n", transcript.to_json(text.as_deref())));
        }
        if let Some(text) = text {
            error(text);
        }
        exit
    }

    async fn exchange_in_time(&self, transcript: &Arc<Transcript>) -> Result<Exit, Failure> {
        let exchange = self.exchange(transcript);
        let Some(seconds) = self.timeout else { return exchange.await };
        let late = |_| Failure(Exit::Failed, format!("no end within {seconds} s; {}", transcript.standing()));
        tokio::time::timeout(Duration::from_secs(seconds), exchange).await.map_err(late)?
    }

    async fn exchange(&self, transcript: &Arc<Transcript>) -> Result<Exit, Failure> {
        let usage = |reason: String| Failure(Exit::Unusable, reason);
        let request = self.request().map_err(usage)?;
        let client = HttpClient::new(self.ca_file.as_deref()).map_err(|reason| usage(format!("--ca-file {reason}")))?;
        let means = self.means().map_err(usage)?;
        // Before anything is paid: what is bought must have a place to go.
        let output = self.output.as_deref().map(Output::open).transpose().map_err(usage)?;
        let answer = match means {
            Some(means) if !self.dry_run => {
                let watch = transcript.clone();
                let layer = PayLayer::new(means, self.budget()).watch(move |event| watch.event(&event));
                layer
                    .layer(client)
                    .oneshot(request)
                    .await
                    .map_err(|error| Failure(exit_of(&error), error.to_string()))?
            }
            means => {
                let mut client = client;
                let mut request = request;
                if let Some(means) = &means {
                    means.announce(request.headers_mut());
                }
                let answer =
                    client.call(request).await.map_err(|error| Failure(exit_of_client(&error), error.to_string()))?;
                if answer.status() == StatusCode::PAYMENT_REQUIRED {
                    return self.look(answer, means.as_ref(), transcript).await;
                }
                answer
            }
        };
        self.deliver(answer, output, transcript).await
    }

    /// What a page costs, without paying.
    async fn look(
        &self,
        answer: Response<AnswerBody>,
        means: Option<&Means>,
        transcript: &Transcript,
    ) -> Result<Exit, Failure> {
        let now = (Clock::system().now_ms() / 1000).cast_signed();
        let (head, _, offers) = read_offers(answer, now).await;
        transcript.status(head.status);
        let offers = offers.map_err(|error| Failure(Exit::Refused, error.to_string()))?;
        transcript.offered(&offers);
        let payable: Vec<Offer> =
            offers.iter().filter(|offer| means.is_none_or(|means| means.can_pay(offer))).cloned().collect();
        let choice = self.budget().choose(&payable);
        if let Some(Ok(offer)) = choice {
            transcript.chosen(offer);
        }
        if self.dry_run {
            transcript.say(
                "dry run",
                &match choice {
                    Some(Err(over)) => format!("nothing paid; {over}"),
                    None => "nothing paid; the key or wallet is for none of these offers".to_owned(),
                    Some(Ok(_)) => "nothing paid; it is within the budget".to_owned(),
                },
            );
            return Ok(Exit::Done);
        }
        let price = offers.first().map_or_else(String::new, |offer| offer.price.to_string());
        let takes = |scheme: &str| offers.iter().any(|offer| offer.scheme() == scheme);
        let how = match (takes("deferred"), takes("exact")) {
            (true, true) => "--key FILE --agent URL, or with --wallet FILE",
            (false, true) => "--wallet FILE",
            (_, false) => "--key FILE --agent URL",
        };
        Err(Failure(Exit::Refused, format!("this costs {price}; pay with {how}")))
    }

    /// What there is to pay with.
    fn means(&self) -> Result<Option<Means>, String> {
        let agent = match (&self.key, &self.agent) {
            (Some(path), Some(url)) => Some(Agent::new(url.clone(), keygen::read_private(path)?)),
            _ => None,
        };
        let wallet = self.wallet.as_deref().map(keygen::read_wallet).transpose()?;
        Ok(match (agent, wallet) {
            (Some(agent), Some(wallet)) => Some(Means::Both(agent, wallet)),
            (Some(agent), None) => Some(agent.into()),
            (None, Some(wallet)) => Some(wallet.into()),
            (None, None) => None,
        })
    }

    /// Hands the answer on.
    async fn deliver(
        &self,
        answer: Response<AnswerBody>,
        output: Option<Output>,
        transcript: &Transcript,
    ) -> Result<Exit, Failure> {
        let (head, mut body) = answer.into_parts();
        let paid = head.extensions.get::<Paid>();
        transcript.answered(head.status, &head.headers, paid);
        let mut sink: Box<dyn Write> = match output {
            Some(output) => {
                Box::new(output.begin().map_err(|e| Failure(Exit::Failed, format!("the body can't be written: {e}")))?)
            }
            None if self.json => Box::new(io::sink()),
            None => Box::new(io::stdout().lock()),
        };
        let mut written = Ok(());
        if self.include {
            let mut text = format!("{:?} {}\r\n", head.version, head.status).into_bytes();
            for (name, value) in &head.headers {
                text.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
            }
            text.extend_from_slice(b"\r\n");
            written = sink.write_all(&text);
        }
        while let (Ok(()), Some(frame)) = (&written, body.frame().await) {
            let frame = frame.map_err(|error| Failure(Exit::Failed, format!("the body is incomplete: {error}")))?;
            if let Ok(data) = frame.into_data() {
                transcript.count(data.len());
                written = sink.write_all(&data);
            }
        }
        match written.and_then(|()| sink.flush()) {
            Ok(()) => transcript.ended(),
            // Whoever read it has seen enough.
            Err(failure) if failure.kind() == io::ErrorKind::BrokenPipe => {}
            Err(failure) => return Err(Failure(Exit::Failed, format!("the body can't be written: {failure}"))),
        }
        // An MCP server's gateway says in the result that the call has a price.
        let unpaid = paid.is_none() && head.headers.get("tollgate-reason").is_some_and(|r| r == "payment_required");
        Ok(match head.status.as_u16() {
            ..400 if unpaid => Exit::Refused,
            ..400 => Exit::Done,
            404 | 410 => Exit::NotFound,
            400..500 => Exit::Refused,
            _ => Exit::Failed,
        })
    }

    fn budget(&self) -> Budget {
        self.max.iter().fold(Budget::default(), |budget, max| budget.or(*max))
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, String> {
        let body = self.data.as_deref().map(read_data).transpose()?;
        let mut request = Request::new(Full::new(body.clone().unwrap_or_default()));
        *request.uri_mut() = self.url.clone();
        let method = if body.is_some() { Method::POST } else { Method::GET };
        *request.method_mut() = self.request.clone().unwrap_or(method);
        for (name, value) in &self.header {
            request.headers_mut().append(name, value.clone());
        }
        if body.is_some() {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            request.headers_mut().entry(header::CONTENT_TYPE).or_insert(form);
        }
        Ok(request)
    }
}

/// The file of `-o`, open; as it was until something comes for it.
struct Output {
    file: Option<File>,
    /// It was not there before.
    made: Option<PathBuf>,
}

impl Output {
    fn open(path: &Path) -> Result<Output, String> {
        let made = File::options().write(true).create_new(true).open(path);
        let (file, made) = match made {
            Err(failure) if failure.kind() == io::ErrorKind::AlreadyExists => {
                (File::options().write(true).open(path), None)
            }
            made => (made, Some(path.to_owned())),
        };
        let file = file.map_err(|failure| format!("{} can't be written: {failure}", path.display()))?;
        Ok(Output { file: Some(file), made })
    }

    /// The file, empty.
    fn begin(mut self) -> io::Result<File> {
        self.made = None;
        let file = self.file.take().ok_or(io::ErrorKind::NotFound)?;
        // A device or a pipe has no length.
        if file.metadata()?.is_file() {
            file.set_len(0)?;
        }
        Ok(file)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(path) = &self.made {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn exit_of(error: &PayError<ClientError>) -> Exit {
    match error {
        PayError::Unpaid(error) => exit_of_client(error),
        PayError::Offer(_) | PayError::OverBudget(_) | PayError::Declined(_) => Exit::Refused,
        PayError::Sign(_) | PayError::Ambiguous { .. } => Exit::Failed,
    }
}

fn exit_of_client(error: &ClientError) -> Exit {
    match error {
        ClientError::Url(_) => Exit::Unusable,
        ClientError::Unreachable { .. } => Exit::Unreachable,
        ClientError::Late(_) | ClientError::Broken(_) => Exit::Failed,
    }
}

/// Text, `@FILE` or `@-`.
fn read_data(data: &str) -> Result<Bytes, String> {
    let Some(path) = data.strip_prefix('@') else { return Ok(data.to_owned().into()) };
    let mut bytes = Vec::new();
    let read = match path {
        "-" => io::stdin().lock().read_to_end(&mut bytes),
        path => File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    read.map_err(|failure| format!("-d {data} can't be read: {failure}"))?;
    Ok(bytes.into())
}

/// A URL as it is typed, with what is not ASCII percent-encoded as UTF-8 (RFC 3987 §3.1); the host must be ASCII.
pub(super) fn encoded(text: &str) -> Result<String, String> {
    let host_ends = text.find("://").map_or(0, |at| at + 3);
    let host_ends = text[host_ends..].find(['/', '?', '#']).map_or(text.len(), |at| host_ends + at);
    let (host, rest) = text.split_at(host_ends);
    if !host.is_ascii() {
        return Err("the host must be in ASCII: write a name with other letters as `xn--…`".to_owned());
    }
    let rest = rest.bytes().map(|b| if b.is_ascii() { char::from(b).to_string() } else { format!("%{b:02X}") });
    Ok(host.to_owned() + &rest.collect::<String>())
}

pub(super) fn url(text: &str) -> Result<Uri, String> {
    let uri: Uri = encoded(text)?.parse().map_err(|error| format!("{error}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("it must start with `https://` or `http://`".to_owned());
    }
    let (head, ()) = Request::get(uri.clone()).body(()).map_err(|error| error.to_string())?.into_parts();
    Target::of(&head)?;
    Ok(uri)
}

fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected `Name: value`")?;
    let name: HeaderName = name.trim().parse().map_err(|_| format!("`{name}` is no field name"))?;
    if name == header::HOST {
        return Err("Host comes from the URL: it is signed".to_owned());
    }
    Ok((name, value.trim().parse().map_err(|_| "the value holds a control character".to_owned())?))
}
