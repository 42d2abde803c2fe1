//! What is counted of a request, and its line in the access log.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode, Version, header};

use super::body::{AnswerBody, Served, milliseconds};
use super::connection::Client;
use super::core::Core;
use super::rescue::Refused;
use crate::payment::reason::Reason;
use crate::telemetry::access::{Line, Sold, time};
use crate::telemetry::tally::Verdict;

/// One request, while it has no answer.
pub struct Trace {
    came: Instant,
    /// The route that was found.
    pub route: Cell<Option<usize>>,
    line: Option<Box<Line>>,
}

fn empty_line(core: &Core) -> Box<Line> {
    Box::new(Line {
        time: time(core.shared.clock.now_ms()),
        client: None,
        method: String::new(),
        scheme: "http",
        host: String::new(),
        path: String::new(),
        http: "1.1",
        status: 0,
        route: Arc::from(""),
        verdict: "",
        reason: "",
        sold: None,
        bytes: 0,
        head_ms: 0.0,
        total_ms: 0.0,
    })
}

/// A request of which nothing is known but who sent it: the HTTP layer could not read it, and has answered it with the status of
/// this reason.
pub fn unread(core: &Core, client: Option<IpAddr>, is_https: bool, reason: Reason) {
    core.tally.refused(reason);
    core.tally.answered(None, Verdict::Refused, Duration::ZERO);
    if let Some(access) = core.shared.telemetry.access() {
        let mut line = empty_line(core);
        (line.client, line.scheme) = (client, if is_https { "https" } else { "http" });
        line.end(reason.status(), Arc::from(""), Verdict::Refused, Some(reason));
        access.take(line);
    }
}

/// With what is not ASCII percent-encoded: some of it moves cursors or breaks lines where people read.
fn ascii(path: &str) -> String {
    if path.is_ascii() {
        return path.to_owned();
    }
    let escaped = path.bytes().map(|b| if b.is_ascii() { char::from(b).to_string() } else { format!("%{b:02X}") });
    escaped.collect()
}

/// What a paid answer carries for its trace.
#[derive(Clone, Debug)]
pub struct Charged {
    /// In millionths of the price's currency.
    pub micros: u64,
    /// For the line.
    pub sold: Box<Sold>,
}

/// What an answer carries that is not charged although a payment was good.
#[derive(Clone, Copy, Debug)]
pub struct Uncharged;

/// What an answer carries that went free because its route only observes.
#[derive(Clone, Copy, Debug)]
pub struct Observed;

impl Trace {
    /// A request that came just now.
    pub fn begin(core: &Core, came: Instant) -> Trace {
        let line = core.shared.telemetry.access().map(|_| empty_line(core));
        Trace { came, route: Cell::new(None), line }
    }

    /// What is asked, and by whom.
    pub fn asked<B>(&mut self, core: &Core, client: &Rc<Client>, request: &Request<B>) {
        let Some(line) = &mut self.line else { return };
        let host = || request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        line.client = client.ip;
        line.method = request.method().to_string();
        line.scheme = client.scheme(core);
        line.host = request.uri().authority().map(|a| a.as_str()).or_else(host).unwrap_or_default().to_owned();
        line.path = ascii(request.uri().path());
        line.http = match request.version() {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        };
    }

    /// It has an answer of the origin, or one of ours that is no refusal.
    pub fn answered(self, core: &Core, response: &mut Response<AnswerBody>, served: &mut Served) {
        let charged = response.extensions_mut().remove::<Charged>();
        let observed = response.extensions_mut().remove::<Observed>();
        let verdict = match (&charged, response.extensions_mut().remove::<Uncharged>()) {
            (Some(_), _) => Verdict::Paid,
            (None, Some(Uncharged)) => Verdict::Uncharged,
            (None, None) if observed.is_some() => Verdict::Observed,
            (None, None) => Verdict::Free,
        };
        if let (Some(charged), Some(route)) = (&charged, self.route.get()) {
            core.tally.charged(route, charged.micros);
        }
        let sold = charged.map(|charged| *charged.sold);
        self.end(core, response.status(), (verdict, None), sold, served);
    }

    /// It was refused.
    pub fn refused(self, core: &Core, refused: &Refused, served: &mut Served) {
        let reason = refused.refusal.reason;
        let verdict = match reason {
            Reason::PaymentRequired => Verdict::Offered,
            _ if reason.status() >= 500 => Verdict::Failed,
            _ => Verdict::Refused,
        };
        core.tally.refused(reason);
        let status = StatusCode::from_u16(refused.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self.end(core, status, (verdict, Some(reason)), None, served);
    }

    fn end(
        self,
        core: &Core,
        status: StatusCode,
        (verdict, reason): (Verdict, Option<Reason>),
        sold: Option<Sold>,
        served: &mut Served,
    ) {
        let took = self.came.elapsed();
        let route = self.route.get();
        core.tally.answered(route, verdict, took);
        let Some(mut line) = self.line else { return };
        let name = route.and_then(|route| Some(core.shared.route_names.get(route)?.name.clone()));
        line.end(status.as_u16(), name.unwrap_or_else(|| Arc::from("")), verdict, reason);
        line.sold = sold;
        line.head_ms = milliseconds(took);
        served.log(line, self.came);
    }
}
