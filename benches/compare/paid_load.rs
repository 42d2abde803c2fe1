//! Load of paid requests, for `benches/compare/compare.sh`.
//!
//! Reads GATEWAY_URL (of a priced page, `http://127.0.0.1:PORT/paid/page`), AGENT_URL, KEY_FILE, REQUESTS, CONNECTIONS.
//! Takes and signs all offers first, prints `ready`, waits for a line on standard input, sends, prints `requests N` with
//! the number of requests that were answered 200.

mod load;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer, SigningKey};
use http::{HeaderMap, HeaderName};
use load::Result;
use tokio::net::TcpStream;
use tollgate::wire::jwk;
use tollgate::wire::signature::{Component, ComponentName, Part, RequestView, SignatureDraft, SignatureParams};

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
    let shop = Load {
        authority: authority.to_owned(),
        path: format!("/{path}"),
        agent: var("AGENT_URL")?,
        key: jwk::signing_key(&std::fs::read_to_string(var("KEY_FILE")?)?)?,
    };
    let requests: usize = var("REQUESTS")?.parse()?;
    load::run(&shop.authority, shop.prepare(requests))
}

impl Load {
    /// Takes an offer for each request and signs it.
    async fn prepare(&self, requests: usize) -> Result<Vec<Vec<u8>>> {
        let mut socket = TcpStream::connect(&self.authority).await?;
        let ask = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", self.path, self.authority);
        let (mut buffer, mut signed) = (Vec::new(), Vec::with_capacity(requests));
        for _ in 0..requests {
            let (status, _, body) = load::exchange(&mut socket, ask.as_bytes(), &mut buffer).await?;
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
        let whole = Component::whole;
        let field = |name| ComponentName::Field(HeaderName::from_static(name));
        let components = vec![
            whole(ComponentName::Authority),
            whole(ComponentName::Method),
            whole(ComponentName::Path),
            whole(field("payment")),
            Component { name: field("signature-agent"), part: Part::Member("sig1".into()) },
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
