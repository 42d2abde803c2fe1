//! A client that sends literal bytes and reads one HTTP/1.1 answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Bounds every read of a test; long enough for the slowest deadline that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The body ended before its announced length.
    pub truncated: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The stable reason code.
    pub fn reason(&self) -> &str {
        self.header("tollgate-reason").unwrap_or("")
    }
}

/// A connection over which requests are sent one after the other.
pub struct Connection {
    pub socket: TcpStream,
    pub reader: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(addr: SocketAddr) -> Connection {
        let socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let reader = BufReader::new(socket.try_clone().unwrap());
        Connection { socket, reader }
    }

    /// Writes; an error is for the answer to show.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.socket.write_all(bytes.as_ref());
    }

    /// Reads an answer; `None` when the connection ended instead. `head` for an answer without body.
    pub fn read(&mut self, head: bool) -> Option<Answer> {
        read_answer(&mut self.reader, head)
    }

    /// Sends and reads.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Option<Answer> {
        let head = bytes.as_ref().starts_with(b"HEAD ");
        self.write(bytes);
        self.read(head)
    }

    /// Whether the other side closed (true) or sent more (false).
    pub fn closed(&mut self) -> bool {
        use std::io::ErrorKind::{TimedOut, WouldBlock};
        match self.reader.read(&mut [0; 1]) {
            Ok(read) => read == 0,
            // Silence until this side's patience was over is no end.
            Err(error) => !matches!(error.kind(), TimedOut | WouldBlock),
        }
    }
}

/// One request over a connection of its own.
pub fn exchange(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> Answer {
    Connection::open(addr).send(bytes).expect("the connection ended without an answer")
}

/// A plain GET.
pub fn get(addr: SocketAddr, path: &str) -> Answer {
    exchange(addr, format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"))
}

pub fn read_answer(reader: &mut impl BufRead, head: bool) -> Option<Answer> {
    loop {
        let answer = read_one(reader, head)?;
        // 100 Continue comes before the answer.
        if answer.status != 100 {
            return Some(answer);
        }
    }
}

fn read_one(reader: &mut impl BufRead, head: bool) -> Option<Answer> {
    let status = line(reader)?.split(' ').nth(1)?.parse().ok()?;
    let mut answer = Answer { status, headers: fields(reader)?, ..Answer::default() };
    if head || status == 204 || status == 304 || status < 200 {
        return Some(answer);
    }
    if answer.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        loop {
            let Some(size) = line(reader).and_then(|l| usize::from_str_radix(l.trim(), 16).ok()) else {
                answer.truncated = true;
                return Some(answer);
            };
            if size == 0 {
                answer.trailers = fields(reader).unwrap_or_default();
                return Some(answer);
            }
            let mut chunk = vec![0; size + 2];
            if reader.read_exact(&mut chunk).is_err() {
                answer.truncated = true;
                return Some(answer);
            }
            answer.body.extend(&chunk[..size]);
        }
    }
    match answer.header("content-length").and_then(|v| v.parse::<u64>().ok()) {
        Some(length) => {
            let _ = reader.take(length).read_to_end(&mut answer.body);
            answer.truncated = (answer.body.len() as u64) < length;
        }
        None => _ = reader.read_to_end(&mut answer.body),
    }
    Some(answer)
}

fn line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    match reader.read_until(b'\n', &mut line) {
        Ok(n) if n > 0 => Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()),
        _ => None,
    }
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
