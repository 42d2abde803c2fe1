//! What the load generators share: requests that are made first, then sent on a word, each once.

use std::cell::Cell;
use std::error::Error;
use std::io::BufRead as _;
use std::rc::Rc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Prepares requests, prints `ready`, waits for a line on standard input, sends them over CONNECTIONS connections, prints
/// `requests N` with the number that were answered 200.
pub fn run(authority: &str, prepare: impl Future<Output = Result<Vec<Vec<u8>>>>) -> Result<()> {
    let connections: usize = std::env::var("CONNECTIONS").map_err(|_| "CONNECTIONS is not set")?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let requests = Rc::new(prepare.await?);
        println!("ready");
        std::io::stdin().lock().read_line(&mut String::new())?;
        let (next, served) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let mut tasks = Vec::new();
        for _ in 0..connections.max(1) {
            let (next, served, requests) = (next.clone(), served.clone(), requests.clone());
            let authority = authority.to_owned();
            tasks.push(tokio::task::spawn_local(async move {
                let Ok(mut socket) = TcpStream::connect(&authority).await else { return };
                let mut buffer = Vec::with_capacity(16 * 1024);
                while let Some(request) = requests.get(next.replace(next.get() + 1)) {
                    match exchange(&mut socket, request, &mut buffer).await {
                        Ok((200, ..)) => served.set(served.get() + 1),
                        Ok((status, head, body)) => {
                            eprintln!("answered {status}: {head}{}", String::from_utf8_lossy(&body));
                        }
                        Err(_) => return,
                    }
                }
            }));
        }
        for task in tasks {
            task.await?;
        }
        println!("requests {}", served.get());
        let few = served.get() * 100 < requests.len() * 99;
        if few { Err("fewer than 99 % were answered 200".into()) } else { Ok(()) }
    })
}

/// One request and its answer (with Content-Length) over a kept connection: status, head, body.
pub async fn exchange(socket: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> Result<(u16, String, Vec<u8>)> {
    socket.write_all(request).await?;
    buffer.clear();
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if socket.read_buf(buffer).await? == 0 {
            return Err("the connection ended".into());
        }
    };
    let head = std::str::from_utf8(&buffer[..head_end])?.to_owned();
    let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
    let length = head
        .lines()
        .find_map(|l| {
            l.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case("content-length")).map(|(_, v)| v.trim())
        })
        .ok_or("no Content-Length")?;
    let end = head_end + length.parse::<usize>()?;
    while buffer.len() < end {
        if socket.read_buf(buffer).await? == 0 {
            return Err("the connection ended".into());
        }
    }
    Ok((status, head, buffer[head_end..end].to_vec()))
}
