//! A line for each request, written by a thread of its own: a disk that hangs holds no request up, it loses lines.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use jiff::Timestamp;
use serde::Serialize;

use super::tally::Verdict;
use crate::payment::reason::Reason;

/// Lines that may wait; more are lost.
const LINES_MAX: usize = 8192;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to; opened anew with each reload, so that it can be moved away.
    File(PathBuf),
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `{"time":"2026-11-24T09:00:00.000Z","status":200,…}`
    Json,
    /// `time=2026-11-24T09:00:00.000Z status=200 …`
    Logfmt,
}

/// One request. No field of a request is in it but method, host and path: no query, no payment, no signature.
#[derive(Debug, Serialize)]
pub struct Line {
    /// When it came, `2026-11-24T09:00:00.000Z`.
    pub time: String,
    /// Who asked, as far as is known.
    pub client: Option<IpAddr>,
    /// `GET`
    pub method: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// As asked for; empty where it could not be read.
    pub host: String,
    /// Without its query.
    pub path: String,
    /// `1.1`, `2`
    pub http: &'static str,
    /// Of the answer.
    pub status: u16,
    /// The route's name; empty for none.
    pub route: Arc<str>,
    /// `paid`
    pub verdict: &'static str,
    /// The code of a refusal.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'static str,
    /// What was sold.
    #[serde(flatten)]
    pub sold: Option<Sold>,
    /// Of the answer's body.
    pub bytes: u64,
    /// From the request to the answer's head, milliseconds.
    pub head_ms: f64,
    /// To the answer's end.
    pub total_ms: f64,
}

/// What was sold by a request.
#[derive(Clone, Debug, Serialize)]
pub struct Sold {
    /// Who paid: `https://signer.example.com`.
    pub agent: Arc<str>,
    /// Who owes it.
    pub account: Arc<str>,
    /// `deferred`
    pub scheme: &'static str,
    /// The payment's key, in hex.
    pub payment: String,
    /// The entry in the books.
    pub entry: i64,
    /// How much was charged, in ledger units of the asset; 0 for an answer that is served again.
    pub units: i64,
    /// `USD`, or a token by its CAIP-19 name.
    pub asset: String,
}

impl Line {
    /// Says what became of the request.
    pub fn end(&mut self, status: u16, route: Arc<str>, verdict: Verdict, reason: Option<Reason>) {
        (self.status, self.route, self.verdict) = (status, route, verdict.name());
        self.reason = reason.map_or("", Reason::code);
    }
}

/// A moment as lines have it.
pub fn time(unix_ms: u64) -> String {
    let moment = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    format!("{moment:.3}")
}

/// The writing end, shared by all cores.
#[derive(Debug)]
pub struct AccessLog {
    lines: SyncSender<Box<Line>>,
    lost: Arc<AtomicU64>,
}

impl AccessLog {
    /// Opens the sink and starts the thread that writes to it; `lost` counts the lines that had no room. It ends when nobody
    /// holds it any more and every line is written.
    ///
    /// # Errors
    /// When the file can't be opened or the thread not be started.
    pub fn open(sink: &Sink, format: Format, lost: Arc<AtomicU64>) -> io::Result<Arc<AccessLog>> {
        let file = |path: &PathBuf| OpenOptions::new().append(true).create(true).mode(0o640).open(path);
        let out: Box<dyn Write + Send> = match sink {
            Sink::Stdout => Box::new(io::stdout()),
            Sink::Stderr => Box::new(io::stderr()),
            Sink::File(path) => Box::new(file(path)?),
        };
        let (lines, waiting) = sync_channel(LINES_MAX);
        let told = lost.clone();
        thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write(BufWriter::new(out), &waiting, format, &told))?;
        Ok(Arc::new(AccessLog { lines, lost }))
    }

    /// Takes a line, or loses it.
    pub fn take(&self, line: Box<Line>) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.lines.try_send(line) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes until nobody can send any more; what was taken is out before it waits.
fn write(mut out: impl Write, waiting: &Receiver<Box<Line>>, format: Format, lost: &AtomicU64) {
    let mut failed = false;
    while let Ok(first) = waiting.recv() {
        let mut lines = 1;
        let mut written = put(&mut out, &first, format);
        while let Ok(line) = waiting.try_recv() {
            lines += 1;
            written = written.and_then(|()| put(&mut out, &line, format));
        }
        match written.and_then(|()| out.flush()) {
            Ok(()) => failed = false,
            Err(error) => {
                lost.fetch_add(lines, Ordering::Relaxed);
                if !failed {
                    tracing::error!(%error, "the access log can't be written; lines are lost");
                }
                failed = true;
            }
        }
    }
}

fn put(out: &mut impl Write, line: &Line, format: Format) -> io::Result<()> {
    match format {
        Format::Json => serde_json::to_writer(&mut *out, line)?,
        Format::Logfmt => {
            let value = serde_json::to_value(line)?;
            let fields = value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
            for (i, (name, value)) in fields.enumerate() {
                let gap = if i == 0 { "" } else { " " };
                match value.as_str() {
                    Some(text) if is_plain(text) => write!(out, "{gap}{name}={text}")?,
                    // As JSON, whose escapes logfmt's readers know.
                    _ => write!(out, "{gap}{name}={value}")?,
                }
            }
        }
    }
    out.write_all(b"\n")
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'=' && b != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(path: &str) -> Line {
        Line {
            time: time(1_700_000_000_123),
            client: Some("192.0.2.7".parse().unwrap()),
            method: "GET".into(),
            scheme: "https",
            host: "shop.example".into(),
            path: path.into(),
            http: "1.1",
            status: 402,
            route: "articles".into(),
            verdict: "offered",
            reason: "payment_required",
            sold: None,
            bytes: 7,
            head_ms: 0.25,
            total_ms: 1.5,
        }
    }

    fn text(line: &Line, format: Format) -> String {
        let mut out = Vec::new();
        put(&mut out, line, format).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn both_formats() {
        assert_eq!(
            text(&line("/a b\n\"x\""), Format::Logfmt),
            "time=2023-11-14T22:13:20.123Z client=192.0.2.7 method=GET scheme=https host=shop.example path=\"/a b\\n\\\"x\\\"\" \
             http=1.1 status=402 route=articles verdict=offered reason=payment_required bytes=7 head_ms=0.25 total_ms=1.5\n"
        );
        let sold = Sold {
            agent: "https://a.example".into(),
            account: "acme".into(),
            scheme: "deferred",
            payment: "01ab".into(),
            entry: 5,
            units: 10_000,
            asset: "USD".into(),
        };
        let json = text(&Line { sold: Some(sold), reason: "", ..line("/a") }, Format::Json);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&value["entry"], &value["account"], &value["path"]), (&5.into(), &"acme".into(), &"/a".into()));
        assert!(value.get("reason").is_none() && json.matches('\n').count() == 1);
    }
}
