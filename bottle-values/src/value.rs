//! The values in a manifest: hosts, variables, images, sizes and durations.

use std::fmt;
use std::str::FromStr;

use crate::mask;
use crate::name::{NameError, check_characters, name_type, name_type_traits};

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
        let fits = |place, c: char| c == '_' || c.is_ascii_alphabetic() || (c.is_ascii_digit() && place > 0);
        check_characters(text, 128, fits).map(|()| Self(text.to_owned())).map_err(|reason| {
            let (shown, reason) = if looks_like_a_token(text) {
                (Self::excerpt(text), Self::TOKEN.to_owned())
            } else {
                (text.to_owned(), reason)
            };
            NameError::new("the name of an environment variable", &shown, reason, Self::ACCEPTED)
        })
    }
}

impl EnvName {
    const TOKEN: &'static str = "it looks like a token itself; give the name of the variable that holds it";

    /// Returns the first four characters of a possible token, followed by `…`.
    fn excerpt(text: &str) -> String {
        text.chars().take(4).chain(['…']).collect()
    }

    /// Checks that the name does not look like a credential. Use it for names that a person wrote, at the keys where a
    /// variable's name is expected, and not for the names that a plan derives from them.
    ///
    /// # Errors
    ///
    /// If the name starts with the token prefix of a well-known service, or looks random.
    pub fn check_not_a_token(&self) -> Result<(), NameError> {
        if looks_like_a_token(&self.0) {
            let (kind, shown) = ("the name of an environment variable", Self::excerpt(&self.0));
            return Err(NameError::new(kind, &shown, Self::TOKEN, Self::ACCEPTED));
        }
        Ok(())
    }

    /// Returns the variable `<prefix><name>`. The prefix must hold only letters and underscores.
    #[doc(hidden)]
    pub fn prefixed(prefix: &'static str, name: &Self) -> Self {
        Self(format!("{prefix}{name}"))
    }
}

name_type_traits!(EnvName, "the name of an environment variable", longest 128, pattern "^[A-Za-z_][A-Za-z0-9_]{0,127}$",);

/// Returns `true` if a text looks more like a credential than like a variable's name. Each part between `_` is checked
/// on its own, because names are made of words.
fn looks_like_a_token(text: &str) -> bool {
    mask::begins_like_a_token(text, 12) || text.split('_').any(mask::is_random)
}

/// Checks that a text is a DNS name in lower case (RFC 1123 section 2.1). An IPv4 address is not accepted.
fn check_dns_name(text: &str) -> Result<(), String> {
    check_characters(text, 253, |_, c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')?;
    for label in text.split('.') {
        if label.is_empty() {
            return Err("it has an empty label".into());
        }
        if label.len() > 63 {
            return Err(format!("its label `{label}` is longer than 63 characters"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(format!("its label `{label}` begins or ends with `-`"));
        }
    }
    // Some resolvers also read a hexadecimal number as an address.
    let is_number = |label: &str| match label.strip_prefix("0x") {
        Some(hex) => hex.bytes().all(|b| b.is_ascii_hexdigit()),
        None => label.bytes().all(|b| b.is_ascii_digit()),
    };
    if text.rsplit('.').next().is_some_and(is_number) {
        return Err("it is a number or an IP address".into());
    }
    Ok(())
}

name_type! {
    /// A DNS name in lower case, such as `api.example.com`.
    HostName, "a host name",
    longest 253, pattern r"^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$", never r"(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)$",
    accepted "a DNS name in lower case, without scheme, port or path",
    check check_dns_name
}

name_type! {
    /// A DNS name, or a wildcard. `*.example.com` matches the names below `example.com`. Whether it also matches
    /// `example.com` itself, and at which depth, depends on where it is used.
    ///
    /// A wildcard for a whole top-level domain (`*.com`) is not accepted, because it would allow nearly every host.
    HostPattern, "a host",
    longest 255, pattern r"^(?:\*\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$", never r"^[^*].{253,}$|(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)$",
    accepted "a DNS name in lower case, or `*.` and a name of at least two labels, without scheme, port or path",
    check |text| match text.strip_prefix("*.") {
        Some(rest) if !rest.contains('.') && check_dns_name(rest).is_ok() => {
            Err("the wildcard covers a whole top-level domain".into())
        }
        Some(rest) => check_dns_name(rest),
        None => check_dns_name(text),
    }
}

impl HostPattern {
    /// Returns the domain after `*.`, or `None` if this is not a wildcard.
    pub fn wildcard_base(&self) -> Option<&str> {
        self.as_str().strip_prefix("*.")
    }

    /// Returns `true` if this is a wildcard and `other` is its domain or below it at any depth. A route for such a
    /// wildcard claims the whole domain: only routes can then allow a host in it.
    ///
    /// ```
    /// # use bottle_values::value::HostPattern;
    /// let claims = |wildcard: &str, other: &str| -> Result<bool, bottle_values::name::NameError> {
    ///     Ok(wildcard.parse::<HostPattern>()?.claims(&other.parse()?))
    /// };
    /// assert!(claims("*.example.com", "a.b.example.com")? && claims("*.example.com", "example.com")?);
    /// assert!(!claims("*.example.com", "notexample.com")? && !claims("example.com", "a.example.com")?);
    /// # Ok::<(), bottle_values::name::NameError>(())
    /// ```
    pub fn claims(&self, other: &Self) -> bool {
        let name = other.wildcard_base().unwrap_or(other.as_str());
        let below = |domain| name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        self.wildcard_base().is_some_and(below)
    }
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
            return Err("it ends with a sign".into());
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
            return Err("its tag is empty, too long or begins with a sign".into());
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
            return Err("it is too short or ends with a sign".into());
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

/// An amount of memory or data as a whole number of bytes: `512MiB`, `2GiB`, `64KiB`, `4096`.
///
/// Docker's short forms (`512m`, `2g`) are accepted as well. They are also powers of 1024.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    const ACCEPTED: &str = "a whole number and `KiB`, `MiB`, `GiB`, `TiB` (or `k`, `m`, `g`, `t`), such as `512MiB`";

    /// Creates a size from a number of kibibytes.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// Creates a size from a number of mebibytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// Returns the size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |reason: &str| NameError::new("a size", text, reason, Self::ACCEPTED);
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| refuse("it does not begin with a whole number in range"))?;
        let shift = match unit {
            "" | "B" | "b" => 0,
            "KiB" | "k" | "K" => 10,
            "MiB" | "m" | "M" => 20,
            "GiB" | "g" | "G" => 30,
            "TiB" | "t" | "T" => 40,
            _ => return Err(refuse(&unknown_unit(number, unit))),
        };
        match number.checked_mul(1 << shift) {
            Some(0) => Err(refuse("it is zero")),
            Some(bytes) if i64::try_from(bytes).is_ok() => Ok(Self(bytes)),
            _ => Err(refuse("it is too large")),
        }
    }
}

/// Returns the problem with a size's unit, with the right spelling for units such as `GB` and `gib`.
fn unknown_unit(number: u64, unit: &str) -> String {
    let unit = unit.trim_start();
    let (first, rest) = unit.split_at(unit.chars().next().map_or(0, char::len_utf8));
    let meant = first.to_ascii_uppercase();
    let is_close = ["K", "M", "G", "T"].contains(&meant.as_str())
        && ["", "b", "i", "ib"].iter().any(|end| rest.eq_ignore_ascii_case(end));
    if is_close {
        return format!("its unit is not known, did you mean `{number}{meant}iB`?");
    }
    "its unit is not known".to_owned()
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shift, unit) = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")]
            .into_iter()
            .find(|(shift, _)| self.0 > 0 && self.0.trailing_zeros() >= *shift)
            .unwrap_or((0, ""));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

/// A duration with one unit: `90s`, `30m`, `12h`, `7d`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

impl Span {
    const ACCEPTED: &str = "a whole number and `s`, `m`, `h` or `d`, such as `12h`";

    /// Creates a duration from a number of seconds.
    pub const fn seconds(count: u64) -> Self {
        Self(count)
    }

    /// Converts to the standard library's duration.
    pub const fn duration(self) -> std::time::Duration {
        std::time::Duration::from_secs(self.0)
    }
}

impl FromStr for Span {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |reason: &str| NameError::new("a span of time", text, reason, Self::ACCEPTED);
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| refuse("it does not begin with a whole number in range"))?;
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            "" => return Err(refuse("it has no unit")),
            _ => return Err(refuse("its unit is not known")),
        };
        match number.checked_mul(unit) {
            Some(0) => Err(refuse("it is zero")),
            // The maximum is 100 years of 366 days. A longer value is most likely a mistake, and certificates and
            // timers cannot hold it.
            Some(seconds) if seconds <= 100 * 366 * 24 * 60 * 60 => Ok(Self(seconds)),
            _ => Err(refuse("it is longer than a century")),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, sign) = [(24 * 60 * 60, "d"), (60 * 60, "h"), (60, "m")]
            .into_iter()
            .find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit))
            .unwrap_or((1, "s"));
        write!(f, "{}{sign}", self.0 / unit)
    }
}

/// Implements the traits of a quantity that is written as a string.
macro_rules! measure_traits {
    ($type:ident, $kind:literal, pattern $pattern:literal, never $never:literal) => {
        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::name::deserialize_parsed(deserializer, $kind, Self::ACCEPTED)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "pattern": $pattern,
                    "not": { "pattern": $never },
                    "description": Self::ACCEPTED
                })
            }
        }
    };
}

measure_traits!(ByteSize, "a size", pattern "^[0-9]+(?:[KMGT]iB|[kKmMgGtTbB])?$", never "^0+[A-Za-z]*$");
measure_traits!(Span, "a span of time", pattern "^[0-9]+[smhd]$", never "^0+[a-z]*$");

/// A number of processors, such as `0.5` or `2`, with at most three decimals. It can be written as a string or a
/// number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuCount {
    thousandths: u32,
}

impl CpuCount {
    const ACCEPTED: &str = "a number above 0 and at most 1024 with at most three decimals, such as `1.5`";
}

impl FromStr for CpuCount {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |reason: &str| NameError::new("a number of processors", text, reason, Self::ACCEPTED);
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || whole.len() > 4 || decimals.len() > 3 {
            return Err(refuse("it is not such a number"));
        }
        let thousandths = format!("{whole}{decimals:0<3}").parse().map_err(|_| refuse("it is not such a number"))?;
        if thousandths == 0 || thousandths > 1_024_000 {
            return Err(refuse("it is out of range"));
        }
        Ok(Self { thousandths })
    }
}

impl fmt::Display for CpuCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.thousandths / 1000, self.thousandths % 1000);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{rest:03}").trim_end_matches('0'))
    }
}

impl fmt::Debug for CpuCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for CpuCount {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for CpuCount {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = CpuCount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number of processors ({})", CpuCount::ACCEPTED)
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<CpuCount, E> {
                number.to_string().parse().map_err(E::custom)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<CpuCount, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<CpuCount, E> {
                number.to_string().parse().map_err(E::custom)
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<CpuCount, E> {
                number.to_string().parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl schemars::JsonSchema for CpuCount {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CpuCount".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["number", "string"],
            "exclusiveMinimum": 0,
            "maximum": 1024,
            "pattern": r"^[0-9]{1,4}(?:\.[0-9]{1,3})?$",
            "description": Self::ACCEPTED
        })
    }
}

/// The protocol of a git upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GitTransport {
    /// `ssh://[user@]host[:port]/path` or `[user@]host:path`.
    Ssh,
    /// `https://host[:port]/path`.
    Https,
}

/// The URL of a git upstream. It cannot contain a password.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GitUrl {
    text: String,
    user: Option<String>,
    host: String,
    port: Option<u16>,
    path: String,
    https: bool,
}

impl GitUrl {
    const ACCEPTED: &str =
        "`ssh://[user@]host[:port]/path`, `[user@]host:path` or `https://host[:port]/path`, without a password";

    /// Returns the URL as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the protocol.
    pub const fn transport(&self) -> GitTransport {
        if self.https { GitTransport::Https } else { GitTransport::Ssh }
    }

    /// Returns the user that ssh logs in as, or `None` if the URL names none.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Returns the host in lower case: a DNS name or an IPv4 address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port, or `None` for the scheme's default port (22 for ssh, 443 for https).
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// Returns the repository's path, without the leading `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the URL in its canonical form, with a scheme.
    pub fn canonical(&self) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        let (scheme, user) = match self.transport() {
            GitTransport::Https => ("https", String::new()),
            GitTransport::Ssh => ("ssh", self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default()),
        };
        format!("{scheme}://{user}{}{port}/{}", self.host, self.path)
    }
}

impl FromStr for GitUrl {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        parse_git_url(text).map_err(|reason| {
            // Text that may hold a password is not repeated.
            let shown = if text.split_once('@').is_some_and(|(before, _)| before.contains(':')) { "…" } else { text };
            NameError::new("a git URL", shown, reason, Self::ACCEPTED)
        })
    }
}

fn parse_git_url(text: &str) -> Result<GitUrl, String> {
    check_characters(text, 1024, |_, c| c.is_ascii_graphic() && !"\"'`\\<>|;*?[]{}$&()".contains(c))?;
    let (https, authority, path) = if let Some(rest) = text.strip_prefix("https://") {
        let (authority, path) = rest.split_once('/').ok_or("it has no path")?;
        (true, authority, path)
    } else if let Some(rest) = text.strip_prefix("ssh://") {
        let (authority, path) = rest.split_once('/').ok_or("it has no path")?;
        (false, authority, path)
    } else if text.contains("://") {
        return Err("its scheme is neither ssh nor https".into());
    } else {
        let (authority, path) = text.split_once(':').ok_or("it has neither a scheme nor `host:path`")?;
        if authority.contains('/') {
            return Err("it is a local path".into());
        }
        if path.starts_with(':') {
            return Err("`NAME::` is the syntax of git's remote helpers".into());
        }
        (false, authority, path.strip_prefix('/').unwrap_or(path))
    };
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if user.is_some_and(|user| user.contains(':')) || (https && user.is_some()) {
        return Err("it holds credentials; give `token` or `identity_file` instead".into());
    }
    if let Some(user) = user {
        check_characters(user, 64, |place, c| {
            c.is_ascii_alphanumeric() || c == '_' || (place > 0 && "-.".contains(c))
        })?;
    }
    let (host, port) = match host.split_once(':') {
        None => (host, None),
        Some((host, port)) => {
            let digits = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
            let port = digits
                .and_then(|port| port.parse::<u16>().ok())
                .filter(|port| *port > 0)
                .ok_or("its port is not 1 to 65535")?;
            (host, Some(port))
        }
    };
    let host = host.to_ascii_lowercase();
    if host.parse::<std::net::Ipv4Addr>().is_err() {
        check_dns_name(&host)?;
    }
    let path = path.trim_end_matches('/');
    if path.is_empty() || path.contains(['#', '%', '@']) || path.starts_with(['-', '/']) {
        return Err("its path is empty or holds a sign that is not allowed".into());
    }
    if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err("its path holds an empty, `.` or `..` segment".into());
    }
    let own_port = if https { 443 } else { 22 };
    Ok(GitUrl {
        text: text.to_owned(),
        user: user.map(ToOwned::to_owned),
        host,
        port: port.filter(|port| *port != own_port),
        path: path.to_owned(),
        https,
    })
}

name_type_traits!(
    GitUrl, "a git URL",
    longest 1024,
    pattern r"^(?:https://(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?::0*(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?/|ssh://(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}@)?(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?::0*(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?/|(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}@)?(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?:/?)[A-Za-z0-9_.!+,=~^:][A-Za-z0-9_.!+,=~^:/-]*$",
    never r"^[^/:]*::|[^:/]//+[^/]|/\.{1,2}(?:/|$)|^[^/:]*:\.{1,2}(?:/|$)|.://.*://|^(?!https://|ssh://).*://|(?:^|@|//)[A-Za-z0-9.-]{254,}[:/]|(?:^|@|//)(?!(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])[:/])(?:[A-Za-z0-9-]+\.)*(?:[0-9]+|0[xX][0-9A-Fa-f]*)[:/]",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_dns_names_and_wildcards_leave_the_top_level_alone() {
        for good in ["a", "localhost", "api.example.com", "*.example.com", "xn--bcher-kva.example", "1e100.net"] {
            assert!(good.parse::<HostPattern>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "*",
            "*.com",
            "*.*.com",
            "a.*.com",
            "Example.com",
            "https://a.b",
            "a.b:443",
            "a.b/",
            "a..b",
            "-a.b",
            "a.b.",
            "1.2.3.4",
            "a b",
            "a_b.c",
            "[::1]",
            "*example.com",
        ] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }

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
    fn measures_survive_the_round_trip() {
        for (text, shown, bytes) in [("512MiB", "512MiB", 512 << 20), ("2g", "2GiB", 2 << 30), ("1000", "1000", 1000)] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.to_string().as_str(), size.bytes()), (shown, bytes));
        }
        for bad in ["", "MiB", "0", "-1k", "1.5g", "1XB", "99999999999999999999", "9999999999TiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        for (text, shown) in [("7d", "7d"), ("24h", "1d"), ("90s", "90s"), ("120m", "2h")] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), shown);
        }
        for bad in ["", "7", "d", "0d", "1w", "99999999d"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        for (text, shown) in [("2", "2"), ("0.5", "0.5"), ("1.250", "1.25")] {
            assert_eq!(text.parse::<CpuCount>().unwrap().to_string(), shown);
        }
        for bad in ["", "0", "-1", "1e3", ".5", "1.2345", "5000"] {
            assert!(bad.parse::<CpuCount>().is_err(), "{bad}");
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

    #[test]
    fn a_wrong_unit_is_refused_with_the_right_one() {
        for (text, meant) in
            [("4GB", "`4GiB`"), ("4gb", "`4GiB`"), ("512 MB", "`512MiB`"), ("1Tib", "`1TiB`"), ("8ki", "`8KiB`")]
        {
            let error = text.parse::<ByteSize>().unwrap_err().to_string();
            assert!(error.contains(&format!("did you mean {meant}?")), "{error}");
        }
        for text in ["4X", "4é", "4 "] {
            assert!(!text.parse::<ByteSize>().unwrap_err().to_string().contains("did you mean"), "{text}");
        }
    }

    #[test]
    fn git_urls_come_in_three_forms() {
        let parts = |text: &str| {
            let url: GitUrl = text.parse().unwrap();
            (url.transport(), url.canonical())
        };
        assert_eq!(parts("git@h.example:team/app.git"), (GitTransport::Ssh, "ssh://git@h.example/team/app.git".into()));
        assert_eq!(parts("ssh://git@h.example:22/a.git"), (GitTransport::Ssh, "ssh://git@h.example/a.git".into()));
        assert_eq!(parts("ssh://h.example:2222/a"), (GitTransport::Ssh, "ssh://h.example:2222/a".into()));
        assert_eq!(parts("https://H.example/a/b.git/"), (GitTransport::Https, "https://h.example/a/b.git".into()));
        for bad in [
            "",
            "/srv/x",
            "./x",
            "file:///x",
            "git://h/x",
            "https://u:p@h.example/x",
            "https://u@h.example/x",
            "ssh://u:p@h.example/x",
            "ssh://h.example",
            "ssh://h.example:0/x",
            "-oProxyCommand=x:y",
            "ssh://-o/x",
            "h.example:-x",
            "h.example:a/../b",
            "ext::sh -c x",
            "http://h.example/x",
        ] {
            assert!(bad.parse::<GitUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refused_git_url_does_not_show_its_password() {
        let error = "https://u:hunter2@h.example/x".parse::<GitUrl>().unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
