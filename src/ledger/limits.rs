//! How large the parts of a posting may be, asked before a claim and again before a row is queued.

use super::{
    evidence::{self, EVIDENCE_BYTES_MAX},
    store::{Claim, Posting},
};

/// Longest text of a posting besides the target, in bytes.
const TEXT_MAX: usize = 4096;
/// Longest target, in bytes.
const TARGET_MAX: usize = 64 * 1024;

/// Whether a payment for this request could be recorded: `GET`, `https://shop.example/a?b`, and the signature base of RFC
/// 9421. Asked before the claim, since what is found too large later has cost an origin call already.
///
/// # Errors
/// What is too long, in a sentence without capital and full stop.
pub fn fits(method: &str, target: &str, base: &str) -> Result<(), String> {
    if method.len() > TEXT_MAX {
        return Err(format!("the method has {} bytes, at most {TEXT_MAX} are recorded", method.len()));
    }
    if target.len() > TARGET_MAX {
        return Err(format!("the target has {} bytes, at most {TARGET_MAX} are recorded", target.len()));
    }
    let evidence = evidence::bytes_max(method, target, base);
    if evidence > EVIDENCE_BYTES_MAX {
        return Err(format!("target and signature base are {evidence} bytes of evidence, over 64 KiB"));
    }
    Ok(())
}

/// The same for a payment that a facilitator settles; `request` is what it is asked.
///
/// # Errors
/// As [`fits`].
pub fn fits_wallet(method: &str, target: &str, request: &str) -> Result<(), String> {
    fits(method, target, "")?;
    let evidence = evidence::wallet_bytes_max(method, target, request);
    if evidence > EVIDENCE_BYTES_MAX {
        return Err(format!("target and payload are {evidence} bytes of evidence, over 64 KiB"));
    }
    Ok(())
}

/// Nothing that the database could refuse goes into a batch.
pub(super) fn check(claim: &Claim, posting: &Posting) -> Result<(), &'static str> {
    let texts = [&claim.request.account, &posting.agent, &posting.route, &posting.method];
    let of_key = posting.key.as_deref().map(|key| [&key.thumbprint, &key.agent, &key.jwk]);
    let mut texts = texts.into_iter().chain(&posting.agent_key).chain(of_key.into_iter().flatten());
    if texts.any(|text| text.len() > TEXT_MAX) || posting.target.len() > TARGET_MAX {
        Err("a text of the posting is too long")
    } else if posting.evidence.len() > EVIDENCE_BYTES_MAX {
        Err("the evidence is over 64 KiB")
    } else if posting.amount > claim.request.amount {
        Err("the posting is for more than was claimed")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::evidence::Evidence;

    /// What passes before the claim passes after it, up to the last byte that an ordinary posting may have.
    #[test]
    fn what_fits_makes_evidence_that_is_taken() {
        let (method, target) = ("M".repeat(4096), format!("https://a.example/{}", "t".repeat(20_000)));
        let longest = (0..EVIDENCE_BYTES_MAX).rev().find(|n| fits(&method, &target, &"b".repeat(*n)).is_ok()).unwrap();
        let evidence = Evidence {
            sealed_id: Some([1; 48]),
            template_digest: Some([2; 32]),
            signature_base: vec![b'b'; longest],
            // The longest that is verified: RSA of 4096 bits.
            signature: vec![3; 512],
            thumbprint: "t".repeat(43),
            directory_digest: [4; 32],
            verified_ms: 5,
            method: method.clone(),
            target: target.clone(),
            origin_status: 200,
        };
        let bytes = evidence.encode().len();
        assert!((EVIDENCE_BYTES_MAX - 200..=EVIDENCE_BYTES_MAX).contains(&bytes), "{bytes}");
        assert!(fits(&method, &target, &"b".repeat(longest + 1)).unwrap_err().contains("64 KiB"));
        assert!(fits(&"M".repeat(4097), "/", "").unwrap_err().contains("the method"));
        assert!(fits("GET", &"t".repeat(65_537), "").unwrap_err().contains("the target"));
    }
}
