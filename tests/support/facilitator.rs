//! A facilitator on a free port that keeps every call and misbehaves on command.
//!
//! Unless told otherwise it verifies everything as valid, settles everything under a made-up transaction, and supports
//! `exact` and `upto` on Base's test network.

use std::collections::{HashMap, VecDeque};
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::origin::read_request;

/// Bounds every wait of a test.
const PATIENCE: Duration = Duration::from_secs(30);

/// A call as it arrived; the list of them is in the order of arrival.
#[derive(Clone, Debug)]
pub struct Call {
    /// `/settle`, without the base path.
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// JSON; null for none.
    pub body: Value,
    /// Which connection it came over, from 0.
    pub connection: usize,
}

impl Call {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    fn asked(&self, name: &str) -> String {
        self.body["paymentRequirements"][name].as_str().unwrap_or_default().to_owned()
    }

    fn payer(&self) -> Value {
        let payload = &self.body["paymentPayload"]["payload"];
        let kinds = ["authorization", "permit2Authorization"].into_iter();
        kinds.map(|kind| payload[kind]["from"].clone()).find(|from| !from.is_null()).unwrap_or_default()
    }

    /// What the default settlement names: `0x` and 64 digits made from the payment, so equal for equal payments.
    pub fn transaction(&self) -> String {
        Sha256::digest(self.body["paymentPayload"].to_string()).iter().fold("0x".into(), |t, b| format!("{t}{b:02x}"))
    }
}

/// What it does with a call.
#[derive(Clone)]
pub enum Behaviour {
    /// The default of the path.
    Good,
    /// `isValid` false.
    Invalid(&'static str),
    /// `success` false, status 200.
    Refused(&'static str),
    /// `settlement_pending`, with this status.
    Pending(u16),
    /// This status and an empty body.
    Status(u16),
    /// This status and body.
    Json(u16, Value),
    /// 429 with `Retry-After`, seconds.
    Busy(u64),
    /// This status and `Location`, with a body that would be a verdict.
    Redirect(u16, String),
    /// 200 with a body that is no JSON.
    Garbage,
    /// 200 with more than is read.
    Huge,
    /// A good answer that breaks off in the middle of its body.
    Half,
    /// A reset of the connection, the request being read.
    Reset,
    /// A good answer, and then the connection is closed without notice.
    GoodThenClose,
    /// A settlement on another network, or of another amount.
    Lie { network: &'static str, amount: &'static str },
    /// Waits for the gate, then does the other thing.
    Held(Gate, Box<Behaviour>),
}

/// Holds calls until it is opened, then lets all pass.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let closed = self.0.0.lock().unwrap();
        let (_open, timeout) = self.0.1.wait_timeout_while(closed, PATIENCE, |open| !*open).unwrap();
        assert!(!timeout.timed_out(), "the test never opened the gate");
    }
}

type Rule = Arc<dyn Fn(&Call) -> Behaviour + Send + Sync>;

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    queues: HashMap<String, VecDeque<Behaviour>>,
    rule: Option<Rule>,
    /// Connections that are reset before anything is read.
    resets: usize,
    now: usize,
    most: usize,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

pub struct Facilitator {
    pub addr: SocketAddr,
    state: Shared,
}

impl Facilitator {
    pub fn start() -> Facilitator {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, state) = (listener.local_addr().unwrap(), Shared::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            for (connection, socket) in listener.incoming().enumerate() {
                let (Ok(socket), state) = (socket, shared.clone()) else { return };
                std::thread::spawn(move || serve(socket, connection, &state));
            }
        });
        Facilitator { addr, state }
    }

    /// For the configuration: `http://127.0.0.1:PORT/base`.
    pub fn url(&self) -> String {
        format!("http://{}/base", self.addr)
    }

    /// The next call of `path` (`/settle`) that has nothing before it in the queue is treated so.
    pub fn next(&self, path: &str, behaviour: Behaviour) {
        self.state.0.lock().unwrap().queues.entry(path.into()).or_default().push_back(behaviour);
    }

    /// Calls for which nothing is queued are treated so.
    pub fn rule(&self, rule: impl Fn(&Call) -> Behaviour + Send + Sync + 'static) {
        self.state.0.lock().unwrap().rule = Some(Arc::new(rule));
    }

    /// [`Facilitator::rule`] for one path; the others are good.
    pub fn always(&self, path: &'static str, behaviour: Behaviour) {
        let behaviour = Mutex::new(behaviour);
        self.rule(move |call| if call.path == path { behaviour.lock().unwrap().clone() } else { Behaviour::Good });
    }

    /// The next connection is reset before anything is read.
    pub fn reset_unread(&self) {
        self.state.0.lock().unwrap().resets += 1;
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state.0.lock().unwrap().calls.clone()
    }

    /// The calls of a path so far.
    pub fn calls_of(&self, path: &str) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.path == path).collect()
    }

    /// How many calls of a path so far.
    pub fn count(&self, path: &str) -> usize {
        self.calls_of(path).len()
    }

    /// Blocks until so many calls of a path have arrived.
    pub fn arrived(&self, path: &str, count: usize) {
        let few = |state: &mut State| state.calls.iter().filter(|call| call.path == path).count() < count;
        let state = self.state.0.lock().unwrap();
        let (_state, timeout) = self.state.1.wait_timeout_while(state, PATIENCE, few).unwrap();
        assert!(!timeout.timed_out(), "fewer than {count} calls of {path}");
    }

    /// The most calls that were under way at once.
    pub fn most_at_once(&self) -> usize {
        self.state.0.lock().unwrap().most
    }
}

fn serve(mut socket: TcpStream, connection: usize, shared: &Shared) {
    {
        let mut state = shared.0.lock().unwrap();
        if state.resets > 0 {
            state.resets -= 1;
            return reset(&socket);
        }
    }
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    while let Some(seen) = read_request(&mut reader) {
        let path = seen.path().strip_prefix("/base").unwrap_or(seen.path()).to_owned();
        let body = serde_json::from_slice(&seen.body).unwrap_or_default();
        let call = Call { path, headers: seen.headers.clone(), body, connection };
        let behaviour = {
            let mut state = shared.0.lock().unwrap();
            state.calls.push(call.clone());
            state.now += 1;
            state.most = state.most.max(state.now);
            let queued = state.queues.get_mut(&call.path).and_then(VecDeque::pop_front);
            let rule = state.rule.clone();
            shared.1.notify_all();
            queued.unwrap_or_else(|| rule.map_or(Behaviour::Good, |rule| rule(&call)))
        };
        let behaviour = match behaviour {
            Behaviour::Held(gate, then) => {
                gate.wait();
                *then
            }
            other => other,
        };
        // Before the answer: who has it may call again at once.
        shared.0.lock().unwrap().now -= 1;
        let open = act(&mut socket, &call, behaviour);
        if !open || call.header("connection") == Some("close") {
            return;
        }
    }
}

/// False ends the connection.
fn act(socket: &mut TcpStream, call: &Call, behaviour: Behaviour) -> bool {
    let settled = |network: &str, amount: &str| {
        let (payer, transaction) = (call.payer(), call.transaction());
        json!({"success": true, "payer": payer, "transaction": transaction, "network": network, "amount": amount})
    };
    let amount = || [call.asked("amount"), call.asked("maxAmountRequired")].concat();
    let good = || match call.path.as_str() {
        "/verify" => json!({"isValid": true, "payer": call.payer()}),
        "/settle" => settled(&call.asked("network"), &amount()),
        "/supported" => json!({"kinds": [
            {"x402Version": 1, "scheme": "exact", "network": "base-sepolia"},
            {"x402Version": 2, "scheme": "exact", "network": "eip155:84532"},
            {"x402Version": 2, "scheme": "upto", "network": "eip155:84532",
                "extra": {"facilitatorAddress": super::permit::SETTLER}},
        ], "extensions": [], "signers": {}}),
        _ => Value::Null,
    };
    let failed = |reason: &str, transaction: &str| {
        let network = call.asked("network");
        json!({"success": false, "errorReason": reason, "transaction": transaction, "network": network})
    };
    match behaviour {
        Behaviour::Good => answer(socket, 200, "", good().to_string().as_bytes()),
        Behaviour::Invalid(reason) => {
            let body = json!({"isValid": false, "invalidReason": reason, "payer": call.payer()});
            answer(socket, 200, "", body.to_string().as_bytes())
        }
        Behaviour::Refused(reason) => answer(socket, 200, "", failed(reason, "").to_string().as_bytes()),
        Behaviour::Pending(status) => {
            let body = failed("settlement_pending", &call.transaction());
            answer(socket, status, "", body.to_string().as_bytes())
        }
        Behaviour::Status(status) => answer(socket, status, "", b""),
        Behaviour::Json(status, body) => answer(socket, status, "", body.to_string().as_bytes()),
        Behaviour::Busy(seconds) => answer(socket, 429, &format!("Retry-After: {seconds}\r\n"), b""),
        Behaviour::Redirect(status, location) => {
            answer(socket, status, &format!("Location: {location}\r\n"), good().to_string().as_bytes())
        }
        Behaviour::Garbage => answer(socket, 200, "", b"<html>it works</html>"),
        Behaviour::Huge => answer(socket, 200, "", &[b' '; 300 * 1024]),
        Behaviour::Half => {
            let body = good().to_string();
            let half = &body[..body.len() / 2];
            let _ = write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{half}", body.len());
            false
        }
        Behaviour::Reset => {
            reset(socket);
            false
        }
        Behaviour::GoodThenClose => {
            answer(socket, 200, "", good().to_string().as_bytes());
            false
        }
        Behaviour::Lie { network, amount } => answer(socket, 200, "", settled(network, amount).to_string().as_bytes()),
        Behaviour::Held(..) => panic!("one gate is enough"),
    }
}

fn answer(socket: &mut TcpStream, status: u16, fields: &str, body: &[u8]) -> bool {
    let head = format!(
        "HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{fields}\r\n",
        body.len()
    );
    socket.write_all(&[head.as_bytes(), body].concat()).is_ok()
}

/// Closing sends RST, not FIN.
fn reset(socket: &TcpStream) {
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
}
