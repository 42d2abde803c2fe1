//! An HTTP client that pays: any `tower` service, wrapped with `PayLayer`.
//!
//! `cargo run --example pay_with_tower` brings its own gateway. `cargo run --example pay_with_tower URL` pays for a page
//! elsewhere, as the agent in the variables AGENT_URL and AGENT_KEY (a file that `tollgate keygen` made).

use std::convert::Infallible;
use std::error::Error;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tollgate::agent::directory::{self, Published};
use tollgate::agent::http::HttpClient;
use tollgate::agent::layer::{Event, Paid};
use tollgate::agent::{Agent, Budget, PayLayer};
use tollgate::config;
use tollgate::server::Gateway;
use tollgate::wire::agent_url::AgentUrl;
use tollgate::wire::amount::Money;
use tollgate::wire::jwk;
use tower::{Layer as _, ServiceExt as _};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        Some(url) => {
            let key = jwk::signing_key(&std::fs::read_to_string(std::env::var("AGENT_KEY")?)?)?;
            buy(Agent::new(AgentUrl::parse(&std::env::var("AGENT_URL")?)?, key), &url).await
        }
        None => {
            let site = Site::start().await?;
            let url = format!("http://{}/articles/1", site.gateway.addresses().next().expect("it listens"));
            let bought = buy(site.agent, &url).await;
            tokio::task::spawn_blocking(|| site.gateway.drain()).await?;
            bought
        }
    }
}

async fn buy(agent: Agent, url: &str) -> Result<(), Box<dyn Error>> {
    // A crawler's own client goes in place of HttpClient: any Service<Request<B>> with a body that is Clone.
    let client = PayLayer::new(agent, Budget::up_to(Money::parse("0.05 USD")?))
        .ask(|offer| {
            println!("asked for {}: yes", offer.price);
            true
        })
        .watch(|event| {
            if let Event::Paying { payment, .. } = event {
                println!("signed:\n{}", payment.base);
            }
        })
        .layer(HttpClient::new(None)?);

    let answer = client.oneshot(Request::get(url).body(Full::<Bytes>::default())?).await?;

    if let Some(paid) = answer.extensions().get::<Paid>() {
        println!("paid {} for {}", paid.offer.price, paid.offer.resource.as_deref().unwrap_or("it"));
    }
    println!("{} {:?}", answer.status(), answer.headers().get("payment-response"));
    println!("{}", String::from_utf8_lossy(&answer.into_body().collect().await?.to_bytes()));
    Ok(())
}

/// A gateway, its origin, and an agent with an account and a directory.
struct Site {
    gateway: Gateway,
    agent: Agent,
    _files: tempfile::TempDir,
}

impl Site {
    async fn start() -> Result<Site, Box<dyn Error>> {
        let (origin, keys) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
        let agent_url = AgentUrl::parse(&format!("http://{}", keys.local_addr()?))?;
        let agent = Agent::new(agent_url, SigningKey::from_bytes(&[42; 32]));
        let toml = format!(
            r#"
            [server]
            listen = ["127.0.0.1:0"]
            drain_seconds = 1
            [origin]
            url = "http://{}"
            [[accounts]]
            name = "example"
            agents = ["{}"]
            credit = "1 USD"
            [[routes]]
            path = "/articles/*"
            price = "0.01 USD"
            "#,
            origin.local_addr()?,
            agent.url()
        );
        let files = tempfile::tempdir()?;
        let config = config::parse(&toml, "example.toml", files.path(), std::iter::empty())
            .map_err(|errors| errors.render(false))?;
        tokio::spawn(serve_origin(origin));
        tokio::spawn(directory::serve(keys, Published::new(&[agent.public_jwk()])));
        // Starting and draining block: not for a thread that serves.
        let gateway = tokio::task::spawn_blocking(|| Gateway::start(config)).await??;
        Ok(Site { gateway, agent, _files: files })
    }
}

async fn serve_origin(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let page = hyper::service::service_fn(|_| async {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("An article that is worth a cent.\n")))
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), page));
    }
}
