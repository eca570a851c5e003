//! Host names and wildcards.

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
}
