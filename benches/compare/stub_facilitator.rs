//! A facilitator that says yes to everything at once, for `benches/compare/compare.sh`: what is measured is who asks it.
//!
//! Listens on PORT of 127.0.0.1; NETWORK is the one that it knows.

use std::convert::Infallible;
use std::error::Error;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let var = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let (port, network) = (var("PORT")?, var("NETWORK")?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let network = network.clone();
            let answer = service_fn(move |request| answer(request, network.clone()));
            tokio::task::spawn_local(http1::Builder::new().serve_connection(TokioIo::new(socket), answer));
        }
    })
}

async fn answer(request: Request<Incoming>, network: String) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let payment = &asked["paymentPayload"]["payload"]["authorization"];
    let said = if path.ends_with("/supported") {
        let kind = json!({"x402Version": 2, "scheme": "exact", "network": network});
        json!({"kinds": [kind], "extensions": [], "signers": {}})
    } else if path.ends_with("/verify") {
        json!({"isValid": true, "payer": payment["from"]})
    } else {
        // 32 bytes that differ from payment to payment.
        json!({"success": true, "payer": payment["from"], "transaction": payment["nonce"], "network": network})
    };
    let mut answer = Response::new(Full::from(said.to_string()));
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(answer)
}
