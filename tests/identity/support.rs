//! Directories on real sockets that answer with given bytes, and the service that reads them.

use std::{
    future::Future,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ed25519_dalek::SigningKey;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
};
use tokio_rustls::TlsAcceptor;
use tollgate::{
    clock::Clock,
    config::{Config, parse},
    identity::{
        Keys, Lookup, Service,
        guard::Admission,
        resolve::{Addresses, Resolve},
        response_parts,
    },
    wire::{agent_url::AgentUrl, jwk::Jwk},
};

/// What a [`Site`] does with a request.
#[derive(Clone)]
pub enum Reply {
    /// Answers and closes.
    Bytes(Vec<u8>),
    /// Answers once told to.
    Gated(Arc<Notify>, Vec<u8>),
    /// Sends this, and then nothing.
    Hang(Vec<u8>),
    /// Sends the first, then the second for ever.
    Endless(Vec<u8>, Vec<u8>),
}

/// A listener on a free port of 127.0.0.1.
pub struct Site {
    pub address: SocketAddr,
    pub reply: Arc<Mutex<Reply>>,
    pub hits: Arc<AtomicUsize>,
    /// The heads of requests.
    pub requests: mpsc::UnboundedReceiver<String>,
    /// A peer is gone.
    pub closed: Arc<Notify>,
}

impl Site {
    pub async fn start(reply: Reply) -> Site {
        Site::serve(reply, None).await
    }

    pub async fn serve(reply: Reply, tls: Option<TlsAcceptor>) -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (heard, requests) = mpsc::unbounded_channel();
        let site = Site {
            address: listener.local_addr().unwrap(),
            reply: Arc::new(Mutex::new(reply)),
            hits: Arc::default(),
            requests,
            closed: Arc::default(),
        };
        let (reply, hits, closed) = (site.reply.clone(), site.hits.clone(), site.closed.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                hits.fetch_add(1, Ordering::SeqCst);
                let (reply, heard, closed, tls) = (reply.clone(), heard.clone(), closed.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => answer(stream, &reply, &heard).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => answer(stream, &reply, &heard).await,
                            Err(_) => None,
                        },
                    };
                    closed.notify_one();
                });
            }
        });
        site
    }

    /// A directory of these keys, fresh for an hour.
    pub async fn of(keys: &[Jwk]) -> Site {
        Site::start(Reply::Bytes(directory(keys))).await
    }

    pub fn agent(&self) -> AgentUrl {
        AgentUrl::parse(&format!("http://{}", self.address)).unwrap()
    }

    pub fn set(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    /// Proves that nobody connected: connections are accepted in order, and ours is the first.
    #[track_caller]
    pub fn untouched(mut self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(b"PROBE / HTTP/1.1\r\n\r\n").await.unwrap();
            let head = self.requests.recv().await.unwrap();
            assert!(head.starts_with("PROBE") && self.hits() == 1, "somebody connected; {caller}");
        }
    }
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    reply: &Mutex<Reply>,
    heard: &mpsc::UnboundedSender<String>,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    heard.send(String::from_utf8(head).ok()?).ok()?;
    let reply = reply.lock().unwrap().clone();
    match reply {
        Reply::Bytes(bytes) => stream.write_all(&bytes).await.ok()?,
        Reply::Gated(gate, bytes) => {
            gate.notified().await;
            stream.write_all(&bytes).await.ok()?;
        }
        Reply::Hang(bytes) => {
            stream.write_all(&bytes).await.ok()?;
            let _ = stream.read_u8().await;
        }
        Reply::Endless(head, piece) => {
            stream.write_all(&head).await.ok()?;
            loop {
                stream.write_all(&piece).await.ok()?;
            }
        }
    }
    stream.shutdown().await.ok()
}

/// A 200 with these fields and this body.
pub fn ok(fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A directory, fresh for an hour.
pub fn directory(keys: &[Jwk]) -> Vec<u8> {
    directory_with(keys, "Cache-Control: max-age=3600\r\n")
}

/// A directory with more header fields.
pub fn directory_with(keys: &[Jwk], fields: &str) -> Vec<u8> {
    let (body, media_type) = response_parts(keys);
    ok(&format!("Content-Type: {media_type}\r\n{fields}"), &body)
}

/// A key of its own for each number.
pub fn key(seed: u8) -> Jwk {
    Jwk::from_public(&SigningKey::from_bytes(&[seed; 32]).verifying_key())
}

pub fn thumbprint(key: &Jwk) -> String {
    key.public_key(true).unwrap().thumbprint().to_owned()
}

/// A resolver made of a function.
pub struct Names<F>(pub F);

impl<F: Fn(&str, u16) -> Addresses + Send + Sync> Resolve for Names<F> {
    fn resolve(&self, host: &str, port: u16, _: Admission) -> Addresses {
        (self.0)(host, port)
    }
}

/// Every name has these addresses.
pub fn names(addresses: Vec<SocketAddr>) -> Arc<dyn Resolve> {
    Arc::new(Names(move |_: &str, _| {
        let addresses = addresses.clone();
        let found: Addresses = Box::pin(async move { Ok(addresses) });
        found
    }))
}

/// No name is ever looked up.
pub fn no_names() -> Arc<dyn Resolve> {
    Arc::new(Names(|host: &str, _| -> Addresses { panic!("{host} was looked up") }))
}

/// Keys and clock of a running service.
pub struct Gate {
    pub keys: Keys,
    pub clock: Clock,
}

impl Gate {
    /// With this `[identity]`.
    pub fn start(identity: &str) -> Gate {
        Gate::with(identity, |_| {}, |service| service)
    }

    /// Only these agents are listed.
    pub fn of(sites: &[&Site]) -> Gate {
        Gate::start(&allow(sites))
    }

    pub fn with(identity: &str, tune: impl FnOnce(&mut Config), change: impl FnOnce(Service) -> Service) -> Gate {
        let text = format!("[origin]\nurl = \"http://127.0.0.1:1\"\n[identity]\n{identity}");
        let mut config =
            parse(&text, "tollgate.toml", Path::new("/"), std::iter::empty()).unwrap_or_else(|e| panic!("{e}"));
        tune(&mut config);
        let clock = Clock::manual(1_800_000_000_000);
        let (keys, questions) = Keys::new();
        let service = Service::new(keys.clone(), questions, &config, clock.clone()).unwrap();
        tokio::spawn(change(service).run());
        Gate { keys, clock }
    }

    /// As a core asks: the table first.
    pub async fn look(&self, agent: &AgentUrl, keyid: &str) -> Lookup {
        let question = async {
            match self.keys.find(agent, keyid, self.clock.now_ms()) {
                Some(lookup) => lookup,
                None => self.keys.ask(agent.clone(), keyid.to_owned()).await,
            }
        };
        soon(question).await
    }
}

/// `allow = […]` with exactly these.
pub fn allow(sites: &[&Site]) -> String {
    format!("allow = {:?}", sites.iter().map(|site| site.agent().to_string()).collect::<Vec<_>>())
}

/// Nothing in these tests takes long; what hangs fails.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it hangs")
}

/// A lookup in one word: the thumbprint, `no such key`, or why not.
pub fn said(lookup: Lookup) -> String {
    match lookup {
        Lookup::Key(key) => key.public.thumbprint().to_owned(),
        Lookup::NoSuchKey => "no such key".to_owned(),
        Lookup::Unavailable { reason, .. } => reason,
    }
}

/// Never.
pub fn pending() -> Addresses {
    let never: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(std::future::pending());
    never
}
