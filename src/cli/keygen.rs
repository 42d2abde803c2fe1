//! `tollgate keygen`: a key for an agent, a wallet, or what gateways seal their offers with.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;

use super::Exit;
use super::output::{error, note, say};
use crate::agent::Wallet;
use crate::agent::signer::public_jwk;
use crate::payment::secrets::Secrets;
use crate::wire::evm::ecdsa;
use crate::wire::jwk::{self, thumbprint};

/// Make a key: for an agent (Ed25519, a private JWK), a wallet (secp256k1, hex), or the offers of gateways that share their
/// books (JSON); a file that only you can read.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The private key goes into the file and nowhere else; the public half and its thumbprint, or the address, are printed.

Examples:
  tollgate keygen                                    writes agent.jwk
  tollgate keygen -o keys/2026.jwk
  tollgate directory --key agent.jwk --print         what to publish
  tollgate keygen --wallet                           writes wallet.key
  tollgate keygen --secret                           writes tollgate-secret.json, for offers.secret_file of each gateway")]
pub struct Keygen {
    /// Where to write the private key; default agent.jwk, wallet.key or tollgate-secret.json.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Make a wallet for token payments instead.
    #[arg(long, conflicts_with = "secret")]
    wallet: bool,
    /// Make the secret that gateways over one database have in common.
    #[arg(long)]
    secret: bool,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
}

impl Keygen {
    pub(super) fn run(self) -> Exit {
        let mut seed = [0; 32];
        if let Err(failure) = getrandom::fill(&mut seed) {
            error(format_args!("the system gives no randomness: {failure}"));
            return Exit::Failed;
        }
        match (self.wallet, self.secret) {
            (true, _) => self.wallet(&seed),
            (_, true) => self.secret(seed),
            _ => self.agent(&seed),
        }
    }

    fn secret(&self, seed: [u8; 32]) -> Exit {
        let Some(path) = self.write("tollgate-secret.json", &Secrets::new_file(seed)) else { return Exit::Failed };
        note(&format!(
            "The secret is in {path}. Copy it to each gateway of the database, and name it there:\n  \
             [offers]\n  secret_file = \"{path}\""
        ));
        Exit::Done
    }

    fn agent(&self, seed: &[u8; 32]) -> Exit {
        let key = SigningKey::from_bytes(seed);
        let Some(path) = self.write("agent.jwk", &(jwk::signing_key_json(&key) + "\n")) else { return Exit::Failed };
        // Strings only: this cannot fail.
        let public = serde_json::to_string(&public_jwk(&key)).unwrap_or_default();
        say(&format!("thumbprint  {}\npublic key  {public}\n", thumbprint(&key.verifying_key())));
        note(&format!(
            "The private key is in {path}; keep it secret.\n\
             Next: publish the public key at https://YOUR-HOST/.well-known/http-message-signatures-directory\n  \
             tollgate directory --key {path} --print     what to serve there\n  \
             tollgate directory --key {path}             or let this command serve it\n\
             then pay as that host:\n  \
             tollgate pay --key {path} --agent https://YOUR-HOST URL"
        ));
        Exit::Done
    }

    fn wallet(&self, seed: &[u8; 32]) -> Exit {
        let Ok(key) = ecdsa::SigningKey::from_slice(seed) else {
            // One of 2^128 seeds is none of the curve.
            error("the system's randomness makes no key; try again");
            return Exit::Failed;
        };
        let wallet = Wallet::new(key);
        let Some(path) = self.write("wallet.key", &wallet.private_text()) else { return Exit::Failed };
        say(&format!("address  {}\n", wallet.address()));
        note(&format!(
            "The private key is in {path}; whoever has it has the wallet's money.\n\
             Next: send the address what it may spend, such as USDC on Base; a sandbox needs none. Then\n  \
             tollgate pay --wallet {path} URL"
        ));
        Exit::Done
    }

    /// Writes the key; the path as shown, or `None` when that failed and was said.
    fn write(&self, default: &str, text: &str) -> Option<String> {
        let output = self.output.as_deref().unwrap_or(Path::new(default));
        let path = output.display();
        match write_private(output, text, self.force) {
            Ok(()) => Some(path.to_string()),
            Err(failure) if failure.kind() == io::ErrorKind::AlreadyExists => {
                error(format_args!("{path} is there already; choose another file, or replace it with --force"));
                None
            }
            Err(failure) => {
                error(format_args!("{path} can't be written: {failure}"));
                None
            }
        }
    }
}

/// Writes a file that only its owner can read. Without `force` a file that is there stays as it is.
pub(super) fn write_private(path: &Path, text: &str, force: bool) -> io::Result<()> {
    let write = |path: &Path| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    if !force {
        return write(path);
    }
    // Written aside and moved, so that a failure leaves the old key.
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    let aside = PathBuf::from(aside);
    let written = write(&aside).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written
}

/// Reads a private key; the error is a sentence for the user.
pub(super) fn read_private(path: &Path) -> Result<SigningKey, String> {
    let text = fs::read_to_string(path).map_err(|failure| {
        let hint = if failure.kind() == io::ErrorKind::NotFound { "; `tollgate keygen` makes one" } else { "" };
        format!("{} can't be read: {failure}{hint}", path.display())
    })?;
    jwk::signing_key(&text).map_err(|reason| format!("{} is not a private key: {reason}", path.display()))
}

/// Reads a wallet's private key; the error is a sentence for the user.
pub(super) fn read_wallet(path: &Path) -> Result<Wallet, String> {
    let text = fs::read_to_string(path).map_err(|failure| {
        let hint =
            if failure.kind() == io::ErrorKind::NotFound { "; `tollgate keygen --wallet` makes one" } else { "" };
        format!("{} can't be read: {failure}{hint}", path.display())
    })?;
    Wallet::parse(&text).map_err(|reason| format!("{} is no wallet's private key: {reason}", path.display()))
}
