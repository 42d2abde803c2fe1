//! A scripted origin: literal bytes out, everything that arrived kept. One thread a connection.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Which connection of the origin it came over.
    pub connection: usize,
}

impl Seen {
    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or("")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn has(&self, name: &str) -> bool {
        self.header(name).is_some()
    }
}

/// What a script does with a request: writes to the socket; false ends the connection.
pub type Script = dyn Fn(&Seen, &mut TcpStream) -> bool + Send + Sync;

pub struct Origin {
    pub addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Origin {
    /// An origin that answers every request with 200 and `content of PATH`.
    pub fn start() -> Origin {
        Origin::scripted(|seen, socket| {
            let body = format!("content of {}", seen.path());
            let body = if seen.line.starts_with("HEAD ") { String::new() } else { body };
            let length = format!("content of {}", seen.path()).len();
            write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nContent-Type: text/plain\r\n\r\n{body}")
                .is_ok()
        })
    }

    pub fn scripted(script: impl Fn(&Seen, &mut TcpStream) -> bool + Send + Sync + 'static) -> Origin {
        Origin::listen(script, read_request)
    }

    fn listen(
        script: impl Fn(&Seen, &mut TcpStream) -> bool + Send + Sync + 'static,
        read: fn(&mut BufReader<TcpStream>) -> Option<Seen>,
    ) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let script: Arc<Script> = Arc::new(script);
        let log = seen.clone();
        std::thread::spawn(move || {
            for (connection, socket) in listener.incoming().enumerate() {
                let Ok(socket) = socket else { return };
                let (script, log) = (script.clone(), log.clone());
                std::thread::spawn(move || serve(socket, connection, &script, &log, read));
            }
        });
        Origin { addr, seen }
    }

    /// An origin whose script runs as soon as the head is there, with the body unread.
    pub fn scripted_heads(script: impl Fn(&Seen, &mut TcpStream) -> bool + Send + Sync + 'static) -> Origin {
        Origin::listen(script, read_head)
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests so far.
    pub fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().cloned().expect("the origin saw no request")
    }
}

fn serve(
    mut socket: TcpStream,
    connection: usize,
    script: &Arc<Script>,
    log: &Mutex<Vec<Seen>>,
    read: fn(&mut BufReader<TcpStream>) -> Option<Seen>,
) {
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    while let Some(mut seen) = read(&mut reader) {
        seen.connection = connection;
        log.lock().unwrap().push(seen.clone());
        if !script(&seen, &mut socket) {
            let _ = socket.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

fn read_head(reader: &mut BufReader<TcpStream>) -> Option<Seen> {
    Some(Seen { line: line(reader)?, headers: fields(reader)?, ..Seen::default() })
}

pub fn read_request<R: BufRead>(reader: &mut R) -> Option<Seen> {
    let mut seen = Seen { line: line(reader)?, headers: fields(reader)?, ..Seen::default() };
    if seen.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        loop {
            let size = usize::from_str_radix(line(reader)?.split(';').next()?.trim(), 16).ok()?;
            if size == 0 {
                seen.trailers = fields(reader)?;
                break;
            }
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            chunk.truncate(size);
            seen.body.extend(chunk);
        }
    } else if let Some(length) = seen.header("content-length") {
        let mut body = vec![0; length.parse().ok()?];
        reader.read_exact(&mut body).ok()?;
        seen.body = body;
    }
    Some(seen)
}

fn line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line).ok()? == 0 {
        return None;
    }
    Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
}

fn fields(reader: &mut impl BufRead) -> Option<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = line(reader)?;
        if line.is_empty() {
            return Some(fields);
        }
        let (name, value) = line.split_once(':')?;
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
}
