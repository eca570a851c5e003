//! The values in a manifest: hosts, variables, images, sizes and durations.

use std::str::FromStr;

pub use crate::git_url::{GitTransport, GitUrl};
pub use crate::host::{AllowedEndpoint, AllowedHost, DEFAULT_PORTS, HostName, RouteHost};
use crate::mask;
use crate::name::{NameError, check_characters, name_type, name_type_traits};
pub use crate::quantity::{ByteSize, CpuCount, Span};
pub use crate::subnet::Subnet;
pub use crate::subnets::{Pools, Subnets};

/// The name of an environment variable: `[A-Za-z_][A-Za-z0-9_]*`, at most 128 characters.
///
/// If the text looks like a token instead of a variable's name, an error repeats only its first four characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvName(String);

impl EnvName {
    /// Description of what is accepted.
    pub const ACCEPTED: &'static str = "1 to 128 letters, digits and underscores, not beginning with a digit";

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EnvName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let reason = match check_variable(text, 128) {
            Ok(()) => return Ok(Self(text.to_owned())),
            Err(_) if looks_like_a_token(text) => Self::TOKEN.to_owned(),
            Err(reason) => reason,
        };
        Err(NameError::new(VARIABLE, &shown(text), reason, Self::ACCEPTED))
    }
}

/// The kind of name in an error.
const VARIABLE: &str = "the name of an environment variable";

/// Checks the characters of a variable's name.
fn check_variable(text: &str, longest: usize) -> Result<(), String> {
    let fits = |place, c: char| c == '_' || c.is_ascii_alphabetic() || (c.is_ascii_digit() && place > 0);
    check_characters(text, longest, fits)
}

/// Returns a text for an error. Of a possible token, these are the first four characters and `…`.
fn shown(text: &str) -> String {
    if looks_like_a_token(text) { text.chars().take(4).chain(['…']).collect() } else { text.to_owned() }
}

impl EnvName {
    const TOKEN: &'static str = "it looks like a token itself; give the name of the variable that holds it";

    /// Checks that the name does not look like a credential. Use it for names that a person wrote, at the keys where a
    /// variable's name is expected, and not for the names that a plan derives from them.
    ///
    /// # Errors
    ///
    /// If the name starts with the token prefix of a well-known service, or looks random.
    pub fn check_not_a_token(&self) -> Result<(), NameError> {
        if looks_like_a_token(&self.0) {
            return Err(NameError::new(VARIABLE, &shown(&self.0), Self::TOKEN, Self::ACCEPTED));
        }
        Ok(())
    }
}

name_type_traits!(EnvName, "the name of an environment variable", longest 128, pattern "^[A-Za-z_][A-Za-z0-9_]{0,127}$",);

/// The name of the environment variable that holds a credential: an [`EnvName`] of at most 100 characters that does not
/// look like a credential itself.
///
/// A sidecar gets the credential in a variable with a longer name, such as `EGRESS_TOKEN_<name>`, which must be an
/// [`EnvName`] as well.
///
/// ```
/// # use bottle_values::value::CredentialName;
/// assert!("API_TOKEN".parse::<CredentialName>().is_ok());
/// assert!("ghp_0123456789abcdefABCD".parse::<CredentialName>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialName(EnvName);

impl CredentialName {
    /// Description of what is accepted.
    pub const ACCEPTED: &'static str = "1 to 100 letters, digits and underscores, not beginning with a digit";

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Returns the variable that holds the credential.
    pub const fn variable(&self) -> &EnvName {
        &self.0
    }

    /// Returns the variable `<prefix><name>`. The prefix must be at most 28 letters and underscores.
    #[doc(hidden)]
    pub fn prefixed(&self, prefix: &'static str) -> EnvName {
        EnvName(format!("{prefix}{self}"))
    }
}

impl FromStr for CredentialName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let reason = match check_variable(text, 100) {
            _ if looks_like_a_token(text) => EnvName::TOKEN.to_owned(),
            Ok(()) => return Ok(Self(EnvName(text.to_owned()))),
            Err(reason) => reason,
        };
        Err(NameError::new(VARIABLE, &shown(text), reason, Self::ACCEPTED))
    }
}

name_type_traits!(
    CredentialName, "the name of an environment variable",
    longest 100, pattern "^[A-Za-z_][A-Za-z0-9_]{0,99}$", never mask::TOKEN_PATTERN,
);

/// Returns `true` if a text looks more like a credential than like a variable's name. Each part between `_` is checked
/// on its own, because names are made of words.
fn looks_like_a_token(text: &str) -> bool {
    mask::begins_like_a_token(text, 12) || text.split('_').any(mask::is_random)
}

name_type! {
    /// The name of a route or of a git upstream.
    EntryName, "an entry's name",
    longest 63, pattern r"^[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?$", never r"\.\.|\.(?:git|lock)$",
    accepted "1 to 63 lower-case letters, digits and inner `.`, `_`, `-`",
    check |text| {
        check_characters(text, 63, |place, c| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || (place > 0 && matches!(c, '.' | '_' | '-'))
        })?;
        if text.ends_with(['.', '_', '-']) {
            return Err("it ends with `.`, `_` or `-`".into());
        }
        // The name becomes a repository's directory, and these endings have a meaning for git.
        let ends = |tail: &str| text.rsplit_once('.').is_some_and(|(_, end)| end == tail);
        if text.contains("..") || ends("git") || ends("lock") {
            return Err("`..` and the endings `.git` and `.lock` are not allowed".into());
        }
        Ok(())
    }
}

name_type! {
    /// A prefix of a URL path, such as `/v1/`. It matches whole segments: `/v1` covers `/v1` and `/v1/x`, but not
    /// `/v10`.
    ///
    /// It must not contain `*`, because it is not a pattern: `/v1/` already covers everything below it.
    ///
    /// It must not contain `;`. Some servers ignore everything after a `;` in a segment, so such a prefix would be
    /// ambiguous.
    PathPrefix, "a path prefix",
    longest 512, pattern r"^/[A-Za-z0-9._~!$&'()+,=:@/-]*$", never r"//|/\.{1,2}(?:/|$)",
    accepted "`/` and URL path characters, without `*`, `;`, `//`, `.` or `..` segments, query, fragment or percent signs",
    check |text| {
        if let Some((prefix, _)) = text.split_once('*').filter(|(prefix, _)| prefix.starts_with('/')) {
            return Err(format!("`*` is not a wildcard there; a prefix covers every path below it: write `{prefix}`"));
        }
        check_characters(text, 512, |place, c| match place {
            0 => c == '/',
            _ => c.is_ascii_alphanumeric() || "._~!$&'()+,=:@/-".contains(c),
        })?;
        if text.contains("//") || text.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err("`//` and the segments `.` and `..` are not allowed".into());
        }
        Ok(())
    }
}

name_type! {
    /// An HTTP method in upper case.
    Method, "an HTTP method",
    longest 20, pattern "^[A-Z]+$", never "^(?:CONNECT|TRACE)$",
    accepted "1 to 20 upper-case letters, such as GET; CONNECT and TRACE are not allowed",
    check |text| {
        check_characters(text, 20, |_, c| c.is_ascii_uppercase())?;
        if matches!(text, "CONNECT" | "TRACE") {
            return Err("a route cannot allow it".into());
        }
        Ok(())
    }
}

name_type! {
    /// The name of an HTTP header in lower case.
    HeaderName, "a header name",
    longest 64, pattern r"^[a-z0-9][a-z0-9-]*$",
    never "^(?:host|connection|content-length|transfer-encoding|te|trailer|upgrade|proxy-authorization|proxy-connection|keep-alive|expect|content-encoding|content-type|accept-encoding)$",
    accepted "1 to 64 lower-case letters, digits and inner hyphens, and no header that frames or routes the message",
    check |text| {
        check_characters(text, 64, |place, c| c.is_ascii_lowercase() || c.is_ascii_digit() || (c == '-' && place > 0))?;
        if matches!(text, "host" | "connection" | "content-length" | "transfer-encoding" | "te" | "trailer" | "upgrade"
            | "proxy-authorization" | "proxy-connection" | "keep-alive" | "expect" | "content-encoding" | "content-type"
            | "accept-encoding") {
            return Err("it frames or routes the message".into());
        }
        Ok(())
    }
}

name_type! {
    /// A reference to an OCI image: `[registry/]repository[:tag][@digest]`.
    ImageRef, "an image reference",
    longest 255,
    pattern r"^(?:(?:localhost|[A-Za-z0-9][A-Za-z0-9_-]*\.[A-Za-z0-9._-]*)(?::[0-9]+)?/|[A-Za-z0-9][A-Za-z0-9_-]*:[0-9]+/)?[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?(?:/[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)*(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@sha256:[0-9a-f]{64})?$",
    accepted "`[registry/]repository[:tag][@sha256:digest]` in the characters of the OCI distribution specification",
    check check_image
}

/// Checks the grammar of an image reference, as far as mistakes are likely. The engine makes the final check.
fn check_image(text: &str) -> Result<(), String> {
    check_characters(text, 255, |place, c| {
        c.is_ascii_alphanumeric() || (place > 0 && matches!(c, '.' | '_' | '-' | '/' | ':' | '@'))
    })?;
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    if let Some(digest) = digest {
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err("its digest is not `sha256:` and 64 hexadecimal digits".into());
        }
    }
    // The last `:` starts a tag only if no `/` follows it. Otherwise it separates the registry's host and port.
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    if let Some(tag) = tag {
        let first = tag.chars().next();
        if tag.len() > 128 || !first.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err("its tag is empty, too long or begins with `.` or `-`".into());
        }
    }
    let (registry, repository) = match path.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
        _ => (None, path),
    };
    if registry.is_some_and(|host| {
        let port = host.split_once(':').map(|(_, port)| port);
        port.is_some_and(|port| port.parse::<u16>().is_err())
    }) {
        return Err("its registry's port is not a number".into());
    }
    for part in repository.split('/') {
        let fits = part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && part.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-'));
        if !fits {
            return Err(format!("its part `{part}` is not lower-case letters and digits with inner `.`, `_`, `-`"));
        }
    }
    Ok(())
}

name_type! {
    /// The name of a Debian package (Debian Policy section 5.6.1).
    DebianPackage, "a Debian package",
    longest 100, pattern r"^(?:[a-z0-9][a-z0-9+.-]*[a-z0-9.]|g\+\+)$",
    accepted "2 to 100 lower-case letters, digits and `+`, `-`, `.`, beginning with a letter or digit",
    check |text| {
        check_characters(text, 100, |place, c| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || (place > 0 && matches!(c, '+' | '-' | '.'))
        })?;
        // apt reads a `-` or `+` at the end of a name as a request to remove or install the package.
        if text.len() < 2 || text.ends_with(['-', '+']) && text != "g++" {
            return Err("it is too short, or ends with `+` or `-`".into());
        }
        Ok(())
    }
}

name_type! {
    /// An exact version of an npm package, such as `2.1.330`.
    NpmVersion, "an exact package version",
    longest 64, pattern r"^[0-9]+\.[0-9]+\.[0-9]+(?:-[0-9A-Za-z.-]*[0-9A-Za-z.])?$",
    accepted "three numbers with dots and an optional `-` and pre-release, such as `2.1.330`",
    check |text| {
        check_characters(text, 64, |_, c| c.is_ascii_alphanumeric() || c == '.' || c == '-')?;
        let core = text.split_once('-').map_or(text, |(core, _)| core);
        let numbers: Vec<_> = core.split('.').collect();
        let numeric = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if numbers.len() != 3 || !numbers.iter().all(numeric) || text.ends_with('-') {
            return Err("it is not three numbers with dots".into());
        }
        Ok(())
    }
}

name_type! {
    /// An absolute path in a container.
    ContainerPath, "an absolute path in the container",
    longest 255, pattern r"^/[^\u0000-\u001f\u007f-\u009f:]+$", never r"//|/$|/\.{1,2}(?:/|$)",
    accepted "`/` and what follows, without `.` or `..` segments, colons or control characters",
    check |text| {
        check_characters(text, 255, |place, c| if place == 0 { c == '/' } else { !c.is_control() && c != ':' })?;
        if text == "/" || text.ends_with('/') || text.contains("//") {
            return Err("it is the root, ends with `/` or holds `//`".into());
        }
        if text.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err("it holds a `.` or `..` segment".into());
        }
        Ok(())
    }
}

name_type! {
    /// A glob over paths or branches: `*` within a segment, `**` across segments, `?` for one character.
    Glob, "a pattern",
    longest 255, pattern r"^[^\u0000-\u0020\u007f-\u009f\\:~^\[]+$", never "^/|/$|//",
    accepted "a path or branch in which `*`, `**` and `?` stand for what varies, without spaces or `\\ : ~ ^ [`",
    check |text| {
        check_characters(text, 255, |_, c| !c.is_control() && !" \\:~^[".contains(c))?;
        if text.starts_with('/') || text.ends_with('/') || text.contains("//") {
            return Err("it begins or ends with `/` or holds `//`".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_follow_the_reference_grammar() {
        let digest = format!("a/b@sha256:{}", "0".repeat(64));
        for good in ["debian", "debian:trixie-slim", "ghcr.io/a/b:1.2", "localhost:5000/x", "host:5000/a/b:t", &digest]
        {
            assert!(good.parse::<ImageRef>().is_ok(), "{good}");
        }
        for bad in ["", "Debian", "a b", "a:", "a/", "/a", "a@sha256:12", "a//b", "host:port/a", "-a", "a:-t", "a$b"] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_in_place_of_a_prefix_is_refused_with_the_prefix() {
        for (text, meant) in
            [("/v1/*", "write `/v1/`"), ("/v1*", "write `/v1`"), ("/*/x", "write `/`"), ("/**", "write `/`")]
        {
            let error = text.parse::<PathPrefix>().unwrap_err().to_string();
            assert!(error.contains("not a wildcard") && error.contains(meant), "{error}");
        }
        assert!("*".parse::<PathPrefix>().is_err());
    }
}
