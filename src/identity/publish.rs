//! What is served for others to verify signatures.

use crate::wire::{
    directory::{Directory, MEDIA_TYPE},
    jwk::Jwk,
};

/// Body and `Content-Type` of a key directory. Only what verifying needs is published, never a private
/// member; `kid` is the thumbprint; keys that nobody could verify with are left out.
pub fn response_parts(keys: &[Jwk]) -> (String, &'static str) {
    let public = |jwk: &Jwk| {
        let mut jwk = Jwk { d: None, key_ops: None, ..jwk.clone() };
        jwk.kid = Some(jwk.public_key(true).ok()?.thumbprint().to_owned());
        Some(jwk)
    };
    let directory = Directory::of(&keys.iter().filter_map(public).collect::<Vec<_>>());
    // Strings and numbers only: this cannot fail.
    (serde_json::to_string(&directory).unwrap_or_default(), MEDIA_TYPE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::jwk::signing_key_json;

    #[test]
    fn the_private_half_stays_private() {
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        let private: Jwk = serde_json::from_str(&signing_key_json(&key)).unwrap();
        let mut weak = private.clone();
        weak.x = Some("AAAA".into());
        let (body, media_type) = response_parts(&[private.clone(), weak]);
        assert!(!body.contains(private.d.as_deref().unwrap()) && !body.contains("\"d\""), "{body}");
        assert_eq!(media_type, "application/http-message-signatures-directory+json");
        let keys = Directory::parse(body.as_bytes(), 1, false, |_, error| panic!("{error}")).unwrap();
        assert_eq!(keys[0].jwk.kid.as_deref(), Some(keys[0].public.thumbprint()));
    }
}
