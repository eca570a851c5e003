use std::collections::HashSet;

use p256::pkcs8::der::{Decode as _, Reader as _, SliceReader, Tag, Tagged as _, asn1::AnyRef};
use pem::{EncodeConfig, LineEnding, Pem};

use crate::{BundleInput, TlsError};

const LABEL: &str = "CERTIFICATE";

/// Returns the certificates that the agent trusts, as one PEM text: the image's roots, then the bottle's authority.
///
/// Duplicate certificates are removed. Comments and other text between the blocks are dropped. `system_roots_pem` may
/// be empty, for an image without roots. `authority_pem` must contain exactly one certificate.
///
/// # Errors
/// Returns an error when a block is truncated, is not base64, does not have a certificate's DER structure, or is not a
/// certificate. A private key is neither copied nor quoted.
pub fn trust_bundle(system_roots_pem: &str, authority_pem: &str) -> Result<String, TlsError> {
    let mut certificates = certificates(system_roots_pem, BundleInput::SystemRoots)?;
    if certificates.is_empty() && !system_roots_pem.trim().is_empty() {
        return Err(problem(BundleInput::SystemRoots, 1, "there is text but no certificate"));
    }
    let authority = self::certificates(authority_pem, BundleInput::Authority)?;
    if authority.len() != 1 {
        let found = format!("there are {} certificates instead of one", authority.len());
        return Err(problem(BundleInput::Authority, 1, found));
    }
    certificates.extend(authority);
    Ok(unique(&certificates))
}

/// Returns additional root certificates, such as a company's, as one PEM text. Order is kept and duplicates are
/// removed. Comments, other text between the blocks and a byte order mark are dropped.
///
/// # Errors
/// Returns an error when there is no certificate, or when a block is truncated, malformed or not a certificate. The
/// error names the certificate by its number and line. A private key is neither copied nor quoted.
pub fn extra_roots(pem: &str) -> Result<String, TlsError> {
    let certificates = certificates(pem.trim_start_matches('\u{feff}'), BundleInput::ExtraRoots)?;
    if certificates.is_empty() {
        let accepted = "there is no certificate; accepted: blocks that begin with `-----BEGIN CERTIFICATE-----`";
        return Err(problem(BundleInput::ExtraRoots, 1, accepted));
    }
    Ok(unique(&certificates))
}

/// Returns each certificate once, in order.
fn unique(certificates: &[Vec<u8>]) -> String {
    let mut seen = HashSet::new();
    certificates.iter().filter(|der| seen.insert(der.as_slice())).map(|der| certificate_pem(der)).collect()
}

/// Returns one certificate as a PEM block with a newline at its end.
pub(crate) fn certificate_pem(der: &[u8]) -> String {
    pem::encode_config(&Pem::new(LABEL, der), EncodeConfig::new().set_line_ending(LineEnding::LF))
}

/// Returns the DER of every certificate in `text`. The blocks are separated here, line by line. PEM readers in general
/// skip what they cannot parse, and a root that is silently missing shows up as a failed connection much later.
fn certificates(text: &str, input: BundleInput) -> Result<Vec<Vec<u8>>, TlsError> {
    let mut found = Vec::new();
    let mut block: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if let Some(label) = boundary(line, "-----BEGIN ") {
            if block.is_some() {
                return Err(problem(input, number, "a block begins inside another"));
            }
            if label != LABEL {
                return Err(problem(input, number, format!("a block is {} and not a certificate", quoted(label))));
            }
            block = Some((number, String::new()));
        } else if boundary(line, "-----END ").is_some() {
            let Some((_, body)) = block.take() else {
                return Err(problem(input, number, "a block ends that never began"));
            };
            let der = decode(&body, line)
                .map_err(|what| problem(input, number, format!("certificate {}: {what}", found.len() + 1)))?;
            found.push(der);
        } else if let Some((_, body)) = &mut block {
            body.push_str(line);
            body.push('\n');
        }
    }
    match block {
        Some((number, _)) => Err(problem(
            input,
            number,
            format!("certificate {}: the block that begins here never ends", found.len() + 1),
        )),
        None => Ok(found),
    }
}

/// Returns the label of a line that starts or ends a block.
fn boundary<'a>(line: &'a str, opening: &str) -> Option<&'a str> {
    line.strip_prefix(opening)?.strip_suffix("-----")
}

fn decode(body: &str, end: &str) -> Result<Vec<u8>, &'static str> {
    let block = pem::parse(format!("-----BEGIN {LABEL}-----\n{body}{end}\n"))
        .map_err(|_| "the block that ends here is not well-formed")?;
    let der = block.into_contents();
    if is_certificate(&der) { Ok(der) } else { Err("the block that ends here does not hold a certificate") }
}

/// Returns true if this has the outer structure of a certificate: signed content, an algorithm, a signature. The
/// content is left to those who verify with it, because an image's roots may be old and unusual.
fn is_certificate(der: &[u8]) -> bool {
    let Ok(outer) = AnyRef::from_der(der) else {
        return false;
    };
    let Ok(mut fields) = SliceReader::new(outer.value()) else {
        return false;
    };
    outer.tag() == Tag::Sequence
        && [Tag::Sequence, Tag::Sequence, Tag::BitString]
            .iter()
            .all(|expected| AnyRef::decode(&mut fields).is_ok_and(|field| field.tag() == *expected))
        && fields.is_finished()
}

/// Returns a label for display, only if it looks like one, because there can be any text between the dashes.
fn quoted(label: &str) -> String {
    let plain = label.len() <= 40 && label.chars().all(|c| matches!(c, 'A'..='Z' | '0'..='9' | ' '));
    if plain { format!("`{label}`") } else { "of an unknown kind".into() }
}

fn problem(input: BundleInput, line: usize, problem: impl Into<String>) -> TlsError {
    TlsError::Bundle { input, line, problem: problem.into() }
}
