//! Files with keys that the gateway makes on its first run.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use ed25519_dalek::SigningKey;

use super::{StartError, entrances};
use crate::config::Config;
use crate::payment::gateway_key::GatewayKey;
use crate::payment::secrets::Secrets;
use crate::tls::server::Certificates;
use crate::wire::jwk::signing_key_json;

/// Reads the sealing keys; makes a first one where there is no file, and says so. Gateways that share their books share the
/// file too, so that none of them makes one for itself.
pub(super) fn load_secrets(path: &Path, shared: bool) -> Result<(Secrets, bool), StartError> {
    let failed = |reason: String| StartError::Secrets { path: path.to_owned(), reason };
    if shared && !path.exists() {
        let reason = "is not there; gateways over one database must have the same file: `tollgate keygen --secret` makes \
                      one, copy it to each of them";
        return Err(failed(reason.to_owned()));
    }
    let (text, new) = load(path, "offers.secret_file", Secrets::new_file).map_err(failed)?;
    Ok((Secrets::parse(&text).map_err(failed)?, new))
}

/// Reads the gateway's own key; makes one where there is no file.
pub(super) fn load_key(path: &Path) -> Result<GatewayKey, StartError> {
    let failed = |reason: String| StartError::Key { path: path.to_owned(), reason };
    let make = |seed| signing_key_json(&SigningKey::from_bytes(&seed)) + "\n";
    let (text, _) = load(path, "signing.key_file", make).map_err(failed)?;
    GatewayKey::parse(&text).map_err(|reason| failed(format!("{reason}; `tollgate keygen` makes one")))
}

/// What is wrong with the files of keys that are there already, as `key: what`; those that are missing are made at the start.
pub fn problems(config: &Config) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut look = |key, path: &Path, check: &dyn Fn(&str) -> Result<(), String>| {
        let checked = match fs::read_to_string(path) {
            Ok(text) => check(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(format!("cannot be read: {error}")),
        };
        if let Err(what) = checked {
            found.push((key, format!("{}: {what}", path.display())));
        }
    };
    look("offers.secret_file", &config.offers.secret_file, &|text| Secrets::parse(text).map(drop));
    if let Some(path) = &config.signing.key_file {
        look("signing.key_file", path, &|text| GatewayKey::parse(text).map(drop));
    }
    if let Some(tls) = &config.server.tls
        && let Err(error) = Certificates::read(entrances::pairs(tls))
    {
        found.push(("server.tls.certificates", error.to_string()));
    }
    found
}

/// A file's text, and whether it was made just now, of 32 random bytes.
fn load(path: &Path, key: &str, make: impl FnOnce([u8; 32]) -> String) -> Result<(String, bool), String> {
    let (text, new) = match fs::read_to_string(path) {
        Ok(text) => (text, false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut random = [0; 32];
            getrandom::fill(&mut random).map_err(|e| format!("the system has no random bytes: {e}"))?;
            let text = make(random);
            write_new(path, text.as_bytes())
                .map_err(|e| format!("cannot be made: {e}; set {key} to a writable place"))?;
            (text, true)
        }
        Err(error) => return Err(format!("cannot be read: {error}")),
    };
    let mode = fs::metadata(path).map_or(0, |m| m.permissions().mode());
    if mode & 0o077 != 0 {
        tracing::warn!(file = %path.display(), "others can read the file of {key}; chmod 600 it");
    }
    Ok((text, new))
}

/// Makes a file that only we can read: never over an existing one, whole or not there, on disk when this returns.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::hard_link(&new, path));
    fs::remove_file(&new)?;
    written?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
}
