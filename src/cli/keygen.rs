//! `tollgate keygen`: a key for an agent.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;

use super::Exit;
use super::output::{error, note, say};
use crate::agent::wallet::public_jwk;
use crate::wire::jwk::{self, thumbprint};

/// Make a key for an agent: Ed25519, as a private JWK that only you can read.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The private key goes into the file and nowhere else; the public half and its thumbprint are printed.

Examples:
  tollgate keygen                                    writes agent.jwk
  tollgate keygen -o keys/2026.jwk
  tollgate directory --key agent.jwk --print         what to publish")]
pub struct Keygen {
    /// Where to write the private key.
    #[arg(short, long, value_name = "FILE", default_value = "agent.jwk")]
    output: PathBuf,
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
        let key = SigningKey::from_bytes(&seed);
        let path = self.output.display();
        match write_private(&self.output, &(jwk::signing_key_json(&key) + "\n"), self.force) {
            Ok(()) => {}
            Err(failure) if failure.kind() == io::ErrorKind::AlreadyExists => {
                error(format_args!("{path} is there already; choose another file, or replace it with --force"));
                return Exit::Failed;
            }
            Err(failure) => {
                error(format_args!("{path} can't be written: {failure}"));
                return Exit::Failed;
            }
        }
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
