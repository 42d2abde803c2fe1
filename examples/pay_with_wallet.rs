//! An HTTP client that pays from a wallet: any `tower` service, wrapped with `PayLayer`.
//!
//! `cargo run --example pay_with_wallet` brings its own gateway, in the sandbox: the transfer is signed and checked, no
//! money moves.

use std::convert::Infallible;
use std::error::Error;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tollgate::agent::http::HttpClient;
use tollgate::agent::layer::Paid;
use tollgate::agent::{Budget, PayLayer, Wallet};
use tollgate::config;
use tollgate::server::Gateway;
use tollgate::wire::amount::Money;
use tollgate::wire::evm::ecdsa::SigningKey;
use tollgate::wire::x402::receipt::Receipt;
use tower::{Layer as _, ServiceExt as _};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let origin = TcpListener::bind("127.0.0.1:0").await?;
    let files = tempfile::tempdir()?;
    let toml = format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        drain_seconds = 1
        [origin]
        url = "http://{}"
        [exact]
        sandbox = true
        [[exact.assets]]
        network = "base-sepolia"
        pay_to = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
        [[routes]]
        path = "/articles/*"
        price = "0.01 USD"
        accept = ["exact"]
        "#,
        origin.local_addr()?,
    );
    let config = config::parse(&toml, "example.toml", files.path(), std::iter::empty())
        .map_err(|errors| errors.render(false))?;
    tokio::spawn(serve_origin(origin));
    // Starting and draining block: not for a thread that serves.
    let gateway = tokio::task::spawn_blocking(|| Gateway::start(config)).await??;
    let bought = buy(&format!("http://{}/articles/1", gateway.addresses().next().expect("it listens"))).await;
    tokio::task::spawn_blocking(|| gateway.drain()).await?;
    bought
}

async fn buy(url: &str) -> Result<(), Box<dyn Error>> {
    // A key that means nothing to anybody; `Wallet::parse` reads one from a file's text.
    let wallet = Wallet::new(SigningKey::from_slice(&[42; 32])?);
    println!("paying from {}", wallet.address());
    let client = PayLayer::new(wallet, Budget::up_to(Money::parse("0.05 USD")?)).layer(HttpClient::new(None)?);

    let answer = client.oneshot(Request::get(url).body(Full::<Bytes>::default())?).await?;

    if let Some(paid) = answer.extensions().get::<Paid>() {
        println!("paid {} to {}", paid.offer.price, paid.offer.pay_to.as_deref().unwrap_or("it"));
    }
    let receipt = answer.headers().get("payment-response").and_then(|field| Receipt::decode(field.as_bytes()));
    println!("{} in transaction {}", answer.status(), receipt.map_or_else(|| "none".to_owned(), |r| r.transaction));
    println!("{}", String::from_utf8_lossy(&answer.into_body().collect().await?.to_bytes()));
    Ok(())
}

async fn serve_origin(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let page = hyper::service::service_fn(|_| async {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("An article that is worth a cent.\n")))
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), page));
    }
}
