//! Load of paid requests, for `benches/compare/compare.sh`.
//!
//! Reads GATEWAY_URL (of a priced page, `http://127.0.0.1:PORT/paid/page`), AGENT_URL, KEY_FILE, REQUESTS, CONNECTIONS.
//! Takes and signs all offers first, prints `ready`, waits for a line on standard input, sends, prints `requests N` with
//! the number of requests that were answered 200.

use std::cell::Cell;
use std::error::Error;
use std::io::BufRead as _;
use std::rc::Rc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer, SigningKey};
use http::{HeaderMap, HeaderName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tollgate::wire::jwk;
use tollgate::wire::signature::{Component, ComponentName, RequestView, SignatureDraft, SignatureParams};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Load {
    authority: String,
    path: String,
    agent: String,
    key: SigningKey,
}

fn main() -> Result<()> {
    let var = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let url = var("GATEWAY_URL")?;
    let rest = url.strip_prefix("http://").ok_or("GATEWAY_URL must begin with http://")?;
    let (authority, path) = rest.split_once('/').ok_or("GATEWAY_URL must have a path")?;
    let load = Load {
        authority: authority.to_owned(),
        path: format!("/{path}"),
        agent: var("AGENT_URL")?,
        key: jwk::signing_key(&std::fs::read_to_string(var("KEY_FILE")?)?)?,
    };
    let (requests, connections): (usize, usize) = (var("REQUESTS")?.parse()?, var("CONNECTIONS")?.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let signed = load.prepare(requests).await?;
        println!("ready");
        std::io::stdin().lock().read_line(&mut String::new())?;
        let (next, served) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let signed = Rc::new(signed);
        let mut tasks = Vec::new();
        for _ in 0..connections.max(1) {
            let (next, served, signed, authority) =
                (next.clone(), served.clone(), signed.clone(), load.authority.clone());
            tasks.push(tokio::task::spawn_local(async move {
                let Ok(mut socket) = TcpStream::connect(&authority).await else { return };
                let mut buffer = Vec::with_capacity(16 * 1024);
                while let Some(request) = signed.get(next.replace(next.get() + 1)) {
                    match exchange(&mut socket, request, &mut buffer).await {
                        Ok((200, _)) => served.set(served.get() + 1),
                        Ok(_) => {}
                        Err(_) => return,
                    }
                }
            }));
        }
        for task in tasks {
            task.await?;
        }
        println!("requests {}", served.get());
        if served.get() * 100 < requests * 99 { Err("fewer than 99 % were answered 200".into()) } else { Ok(()) }
    })
}

impl Load {
    /// Takes an offer for each request and signs it.
    async fn prepare(&self, requests: usize) -> Result<Vec<Vec<u8>>> {
        let mut socket = TcpStream::connect(&self.authority).await?;
        let ask = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", self.path, self.authority);
        let (mut buffer, mut signed) = (Vec::new(), Vec::with_capacity(requests));
        for _ in 0..requests {
            let (status, body) = exchange(&mut socket, ask.as_bytes(), &mut buffer).await?;
            if status != 402 {
                return Err(format!("expected an offer, got status {status}").into());
            }
            let offer: serde_json::Value = serde_json::from_slice(&body)?;
            let entry = &offer["accepts"][0];
            let text = |value: &serde_json::Value| value.as_str().map(str::to_owned).ok_or("the offer lacks a member");
            signed.push(self.sign(&text(&entry["network"])?, &text(&entry["extras"]["id"])?)?);
        }
        Ok(signed)
    }

    fn sign(&self, network: &str, id: &str) -> Result<Vec<u8>> {
        let payment = format!(r#"scheme="deferred", network="{network}", id="{id}""#);
        let agent = format!(r#"sig1="{}""#, self.agent);
        let mut headers = HeaderMap::new();
        headers.insert("payment", payment.parse()?);
        headers.insert("signature-agent", agent.parse()?);
        let (path, query) = self.path.split_once('?').map_or((self.path.as_str(), None), |(p, q)| (p, Some(q)));
        let view =
            RequestView { method: "GET", scheme: "http", authority: &self.authority, path, query, headers: &headers };
        let whole = |name| Component { name, key: None };
        let field = |name| ComponentName::Field(HeaderName::from_static(name));
        let components = vec![
            whole(ComponentName::Authority),
            whole(ComponentName::Method),
            whole(ComponentName::Path),
            whole(field("payment")),
            Component { name: field("signature-agent"), key: Some("sig1".into()) },
        ];
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs().cast_signed();
        let params = SignatureParams {
            created: Some(now),
            expires: Some(now + 290),
            keyid: Some(jwk::thumbprint(&self.key.verifying_key())),
            tag: Some("web-bot-auth".into()),
            ..SignatureParams::default()
        };
        let draft = SignatureDraft { label: "sig1".into(), components, params };
        let (input, base) = draft.prepare(&view)?;
        let signature = STANDARD.encode(self.key.sign(base.as_bytes()).to_bytes());
        Ok(format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nPayment: {payment}\r\nSignature-Agent: {agent}\r\nSignature-Input: {input}\r\n\
             Signature: sig1=:{signature}:\r\n\r\n",
            self.path, self.authority
        )
        .into_bytes())
    }
}

/// One request and its answer (with Content-Length) over a kept connection.
async fn exchange(socket: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> Result<(u16, Vec<u8>)> {
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
    let head = std::str::from_utf8(&buffer[..head_end])?;
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
    Ok((status, buffer[head_end..end].to_vec()))
}
