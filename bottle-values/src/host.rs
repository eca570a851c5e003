//! Host names and wildcards.

use crate::mask::begins_like_a_token;
use crate::name::{check_characters, name_type};

/// Checks that a text is a DNS name in lower case (RFC 1123 section 2.1). An IPv4 address is not accepted.
pub(crate) fn check_dns_name(text: &str) -> Result<(), String> {
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

/// A DNS name, or `*.` and a DNS name.
const NAME_OR_WILDCARD: &str = r"^(?:\*\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$";

/// A name longer than 253 characters, a number or an address, or a single label that looks like a token.
const NEVER_A_HOST: &str = r"^[^*].{253,}$|(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)$|^(?:glpat-|sk-|xapp-|xoxa-|xoxb-|xoxe-|xoxp-|xoxr-|xoxs-|pypi-)[^.]{12,}$";

/// Checks a DNS name, or `*.` and a DNS name. A wildcard for a whole top-level domain (`*.com`) is not accepted, because
/// it would allow nearly every host. Nor is a single label that looks like a token, because an agent or a person may have
/// put a secret in the wrong place, and hosts are logged.
fn check_name_or_wildcard(text: &str) -> Result<(), String> {
    match text.strip_prefix("*.") {
        Some(rest) if !rest.contains('.') && check_dns_name(rest).is_ok() => {
            Err("the wildcard covers a whole top-level domain".into())
        }
        Some(rest) => check_dns_name(rest),
        None if !text.contains('.') && begins_like_a_token(text, 12) => Err("it looks like a token".into()),
        None => check_dns_name(text),
    }
}

name_type! {
    /// An entry of an allowlist: a DNS name, or a domain wildcard. The domain wildcard `*.example.com` covers
    /// `example.com` and every name below it, at any depth.
    ///
    /// [`RouteHost`] has the same spelling, but its wildcard covers exactly one label.
    ///
    /// ```
    /// # use bottle_values::value::AllowedHost;
    /// let allowed: AllowedHost = "*.example.com".parse()?;
    /// assert_eq!(allowed.domain(), Some("example.com"));
    /// for name in ["example.com", "api.example.com", "a.b.example.com"] {
    ///     assert!(allowed.covers(&name.parse()?));
    /// }
    /// assert!("*.com".parse::<AllowedHost>().is_err());
    /// # Ok::<(), bottle_values::name::NameError>(())
    /// ```
    AllowedHost, "a host",
    longest 255, pattern NAME_OR_WILDCARD, never NEVER_A_HOST,
    accepted "a DNS name in lower case such as `api.example.com`, or a domain wildcard such as `*.example.com` for `example.com` and every name below it, both for the ports 80 and 443 (only the manifest can name another); no scheme, port, path or IP address",
    check check_name_or_wildcard
}

name_type! {
    /// The host of a route: a DNS name, or a label wildcard. The label wildcard `*.example.com` covers the names exactly
    /// one label below `example.com`, such as `api.example.com`, but neither `example.com` nor `a.b.example.com`.
    ///
    /// [`AllowedHost`] has the same spelling, but its wildcard covers the whole domain.
    ///
    /// ```
    /// # use bottle_values::value::RouteHost;
    /// let host: RouteHost = "*.example.com".parse()?;
    /// assert!(host.matches("api.example.com"));
    /// assert!(!host.matches("example.com") && !host.matches("a.b.example.com"));
    /// # Ok::<(), bottle_values::name::NameError>(())
    /// ```
    RouteHost, "a route's host",
    longest 255, pattern NAME_OR_WILDCARD, never NEVER_A_HOST,
    accepted "a DNS name in lower case such as `api.example.com`, or a label wildcard such as `*.example.com` for the names exactly one label below `example.com`; the port is a key of its own; no scheme, path or IP address",
    check check_name_or_wildcard
}

/// A DNS name or a wildcard, and perhaps a port without leading zeros.
const NAME_AND_PORT: &str = r"^(?:\*\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?::[1-9][0-9]{0,4})?$";

/// As [`NEVER_A_HOST`], and a port above 65535.
const NEVER_AN_ENDPOINT: &str = r"^(?:\*\.)?[^*:]{254,}|(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)(?:$|:)|^(?:glpat-|sk-|xapp-|xoxa-|xoxb-|xoxe-|xoxp-|xoxr-|xoxs-|pypi-)[^.:]{12,}(?:$|:)|:(?:6553[6-9]|655[4-9][0-9]|65[6-9][0-9]{2}|6[6-9][0-9]{3}|[7-9][0-9]{4})$";

/// Parses `HOST` or `HOST:PORT`.
fn check_name_and_port(text: &str) -> Result<(), String> {
    let (host, port) = match text.split_once(':') {
        // A scheme or an IPv6 address is no host with a port.
        Some((host, port)) if !port.starts_with('/') && !port.contains(':') => (host, Some(port)),
        _ => (text, None),
    };
    check_name_or_wildcard(host)?;
    match port {
        Some(port) if port.starts_with(['0', '+']) || port.parse::<u16>().is_err() => {
            Err("its port is not a whole number from 1 to 65535".into())
        }
        _ => Ok(()),
    }
}

name_type! {
    /// An allowed host or domain wildcard, with a port if one is written. Without a port, it is reached on ports 80 and 443.
    ///
    /// ```
    /// # use bottle_values::value::AllowedEndpoint;
    /// let endpoint: AllowedEndpoint = "*.example.com:8443".parse()?;
    /// assert_eq!((endpoint.host().as_str(), endpoint.port()), ("*.example.com", Some(8443)));
    /// # Ok::<(), bottle_values::name::NameError>(())
    /// ```
    AllowedEndpoint, "a host",
    longest 261, pattern NAME_AND_PORT, never NEVER_AN_ENDPOINT,
    accepted "a DNS name in lower case such as `api.example.com`, or a domain wildcard such as `*.example.com` for `example.com` and every name below it; with a port, such as `api.example.com:8443`, for another one than 80 and 443; no scheme, path or IP address",
    check check_name_and_port
}

/// The ports of a host for which none is written: HTTP and HTTPS.
pub const DEFAULT_PORTS: [u16; 2] = [80, 443];

impl AllowedEndpoint {
    /// Returns the host.
    pub fn host(&self) -> AllowedHost {
        AllowedHost(self.0.split(':').next().unwrap_or_default().to_owned())
    }

    /// Returns the port. `None` if none is written.
    pub fn port(&self) -> Option<u16> {
        self.0.split_once(':').and_then(|(_, port)| port.parse().ok())
    }
}

impl AllowedHost {
    /// Returns the domain after `*.`, or `None` if this is not a wildcard.
    pub fn domain(&self) -> Option<&str> {
        self.as_str().strip_prefix("*.")
    }

    /// Returns `true` if this entry covers every name that `other` covers.
    ///
    /// ```
    /// # use bottle_values::value::AllowedHost;
    /// let covers = |one: &str, other: &str| -> Result<bool, bottle_values::name::NameError> {
    ///     Ok(one.parse::<AllowedHost>()?.covers(&other.parse()?))
    /// };
    /// assert!(covers("*.example.com", "*.a.example.com")? && covers("example.com", "example.com")?);
    /// assert!(!covers("*.example.com", "notexample.com")? && !covers("example.com", "*.example.com")?);
    /// # Ok::<(), bottle_values::name::NameError>(())
    /// ```
    pub fn covers(&self, other: &Self) -> bool {
        let name = other.domain().unwrap_or(other.as_str());
        let below = |domain| name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        self == other || self.domain().is_some_and(below)
    }

    /// Returns the entry with the meaning of a wildcard in words, for a person.
    ///
    /// ```
    /// # use bottle_values::value::AllowedHost;
    /// let shown = |text: &str| text.parse::<AllowedHost>().map(|host| host.in_words());
    /// assert_eq!(shown("*.example.com")?, "*.example.com (example.com and every name below it)");
    /// assert_eq!(shown("example.com")?, "example.com");
    /// # Ok::<(), bottle_values::name::NameError>(())
    /// ```
    pub fn in_words(&self) -> String {
        match self.domain() {
            Some(domain) => format!("{self} ({domain} and every name below it)"),
            None => self.to_string(),
        }
    }
}

impl RouteHost {
    /// Returns the domain after `*.`, or `None` if this is not a wildcard.
    pub fn domain(&self) -> Option<&str> {
        self.as_str().strip_prefix("*.")
    }

    /// Returns `true` if the route is for a host name in lower case.
    pub fn matches(&self, name: &str) -> bool {
        match self.domain() {
            Some(domain) => name.split_once('.').is_some_and(|(label, parent)| !label.is_empty() && parent == domain),
            None => name == self.as_str(),
        }
    }

    /// Returns the entry of an allowlist that has the same spelling, and with which pipelock lets the route's requests
    /// pass. For a wildcard it covers more than the route: the domain itself and deeper names. Egress denies those.
    pub fn to_allowed(&self) -> AllowedHost {
        AllowedHost(self.0.clone())
    }

    /// Returns `true` if this is a wildcard and `other` is in its domain, at any depth. A route for a wildcard claims the
    /// whole domain: only routes can then allow a host in it.
    ///
    /// ```
    /// # use bottle_values::value::RouteHost;
    /// let claims = |wildcard: &str, other: &str| -> Result<bool, bottle_values::name::NameError> {
    ///     Ok(wildcard.parse::<RouteHost>()?.claims(&other.parse()?))
    /// };
    /// assert!(claims("*.example.com", "a.b.example.com")? && claims("*.example.com", "example.com")?);
    /// assert!(!claims("*.example.com", "notexample.com")? && !claims("example.com", "example.com")?);
    /// # Ok::<(), bottle_values::name::NameError>(())
    /// ```
    pub fn claims(&self, other: &AllowedHost) -> bool {
        self.domain().is_some() && self.to_allowed().covers(other)
    }

    /// Returns the host with the meaning of a wildcard in words, for a person.
    ///
    /// ```
    /// # use bottle_values::value::RouteHost;
    /// let shown = |text: &str| text.parse::<RouteHost>().map(|host| host.in_words());
    /// assert_eq!(shown("*.example.com")?, "*.example.com (names exactly one label below example.com)");
    /// assert_eq!(shown("example.com")?, "example.com");
    /// # Ok::<(), bottle_values::name::NameError>(())
    /// ```
    pub fn in_words(&self) -> String {
        match self.domain() {
            Some(domain) => format!("{self} (names exactly one label below {domain})"),
            None => self.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_dns_names_and_wildcards_leave_the_top_level_alone() {
        for good in ["a", "localhost", "api.example.com", "*.example.com", "xn--bcher-kva.example", "1e100.net"] {
            assert!(good.parse::<AllowedHost>().is_ok() && good.parse::<RouteHost>().is_ok(), "{good}");
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
            assert!(bad.parse::<AllowedHost>().is_err() && bad.parse::<RouteHost>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_endpoint_is_a_host_and_perhaps_a_port() {
        let parsed = |text: &str| text.parse::<AllowedEndpoint>().ok().map(|it| (it.host().to_string(), it.port()));
        for (text, port) in [("a.b", None), ("a.b:1", Some(1)), ("*.a.b:65535", Some(65535)), ("a.b:443", Some(443))] {
            let host = text.split(':').next().unwrap().to_owned();
            assert_eq!(parsed(text), Some((host, port)));
        }
        for bad in [
            "a.b:",
            "a.b:0",
            "a.b:080",
            "a.b:+80",
            "a.b:65536",
            "a.b:99999",
            "a.b:100000",
            "a.b:80:81",
            "A.b:80",
            "1.2.3.4:80",
            "[::1]:80",
            "*.com:80",
            "a.b:x",
            ":80",
            "a.b :80",
            "sk-0123456789abcdef:80",
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    /// The two meanings of one spelling.
    #[test]
    fn a_wildcard_covers_a_domain_in_an_allowlist_and_one_label_in_a_route() {
        let (allowed, route): (AllowedHost, RouteHost) =
            ("*.example.com".parse().unwrap(), "*.example.com".parse().unwrap());
        for (name, is_allowed, is_routed) in [
            ("example.com", true, false),
            ("api.example.com", true, true),
            ("a.b.example.com", true, false),
            ("notexample.com", false, false),
            ("com", false, false),
        ] {
            assert_eq!(
                (allowed.covers(&name.parse().unwrap()), route.matches(name)),
                (is_allowed, is_routed),
                "{name}"
            );
        }
    }
}
