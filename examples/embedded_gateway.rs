//! A gateway inside another program: from TOML text, before an origin of its own.
//!
//! `cargo run --example embedded_gateway`

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use tollgate::config;
use tollgate::server::Gateway;

fn main() -> Result<(), Box<dyn Error>> {
    let origin = start_origin()?;
    let files = tempfile::tempdir()?;
    let toml = format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        drain_seconds = 1
        [origin]
        url = "http://{origin}"
        [[accounts]]
        name = "example-crawler"
        agents = ["https://signer.example.com"]
        credit = "100 USD"
        [[routes]]
        path = "/articles/*"
        price = "0.01 USD"
        "#
    );
    // The ledger and the secret that seals offers are relative to this directory. No environment overrides.
    let config = config::parse(&toml, "embedded.toml", files.path(), std::iter::empty())
        .map_err(|errors| errors.render(false))?;
    let gateway = Gateway::start(config)?;
    let address = gateway.addresses().next().expect("it listens");

    println!("GET / is free:\n{}\n", get(address, "/")?);
    println!("GET /articles/1 has a price:\n{}", get(address, "/articles/1")?);

    // Ends what is being served, then writes and closes the books.
    gateway.drain();
    Ok(())
}

/// One request, its whole answer.
fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address)?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Answers every request with a line of text.
fn start_origin() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            std::thread::spawn(move || answer(socket));
        }
    });
    Ok(address)
}

fn answer(mut socket: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(socket.try_clone()?).lines();
    while let Some(request) = lines.next().transpose()? {
        // The rest of the head; these requests have no body.
        for line in lines.by_ref() {
            if line?.is_empty() {
                break;
            }
        }
        let body = format!("The origin saw: {request}");
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    }
    Ok(())
}
