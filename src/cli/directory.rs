//! `tollgate directory`: an agent's public keys, for others to verify its signatures.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::output::{error, print, say};
use super::run::Signals;
use super::{Exit, keygen};
use crate::agent::directory::{Published, serve};
use crate::agent::signer::public_jwk;
use crate::wire::agent_url::AgentUrl;
use crate::wire::directory::WELL_KNOWN;

/// Serve an agent's key directory, or print it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Gateways read it at https://YOUR-HOST/.well-known/http-message-signatures-directory. Plain HTTP and loopback are for
trying things out: a gateway reads those only for agents that its configuration names exactly.

Examples:
  tollgate directory --key agent.jwk                       on a free port of this machine, until interrupted
  tollgate directory --key agent.jwk --listen 0.0.0.0:80
  tollgate directory --key old.jwk --key new.jwk --print   the JSON, for a web server to publish")]
pub struct Directory {
    /// A private key, as `tollgate keygen` writes it; repeat it while keys are exchanged.
    #[arg(long, value_name = "FILE", required = true)]
    key: Vec<PathBuf>,
    /// Where to serve; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The origin under which others reach it, if it is not the address.
    #[arg(long, value_name = "URL", value_parser = AgentUrl::parse)]
    url: Option<AgentUrl>,
    /// Only print the JSON.
    #[arg(long)]
    print: bool,
}

impl Directory {
    pub(super) fn run(self) -> Exit {
        let mut keys = Vec::new();
        for path in &self.key {
            match keygen::read_private(path) {
                Ok(key) => keys.push(public_jwk(&key)),
                Err(reason) => {
                    error(reason);
                    return Exit::Unusable;
                }
            }
        }
        let published = Published::new(&keys);
        if self.print {
            say(&format!("{}\n", published.json()));
            return Exit::Done;
        }
        match self.serve(published) {
            Ok(exit) => exit,
            Err(failure) => {
                error(format_args!("{} can't be served: {failure}", self.listen));
                Exit::Unusable
            }
        }
    }

    fn serve(&self, published: Published) -> std::io::Result<Exit> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind(self.listen))?;
        let address = listener.local_addr()?;
        let url = self.url.as_ref().map_or_else(|| format!("http://{address}"), ToString::to_string);
        let serving = std::thread::Builder::new().spawn(move || runtime.block_on(serve(listener, published)))?;
        let mut signals = Signals::listen()?;
        // Scripts wait for the first line.
        let shown = print(&format!(
            "{url}{WELL_KNOWN}\n\n\
             # For the gateway's configuration:\n\
             [[accounts]]\nname = \"my-agent\"\nagents = [\"{url}\"]\ncredit = \"10 USD\"\n"
        ));
        drop(serving);
        // Without reader the directory is served all the same.
        drop(shown);
        signals.wait();
        Ok(Exit::Done)
    }
}
