//! Inspection of hosts by pipelock, and the two forms of an entry of `egress.allow`.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::value::{AllowedEndpoint, AllowedHost};

/// Inspection of the encrypted connections to a host by pipelock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Inspect {
    /// Pipelock checks the host name, the resolved address and the TLS server name, and passes the encrypted bytes at
    /// full speed. If the bottle has egress, egress still sees and logs every request. Without egress, a connection
    /// that does not start with a TLS handshake is also passed, and nothing sees the host name of a request inside TLS.
    /// The agent can then use any protocol with the host.
    #[default]
    Connection,
    /// Pipelock decrypts the connection, and also scans URLs for secrets and responses for prompt injection. A response
    /// is held back until it has been scanned, which takes about 2 s per MiB. A response above 1 MiB is denied. Event
    /// streams are scanned event by event. The bottle has egress then, with or without routes, because egress bounds the
    /// number of requests that pipelock decrypts at once.
    Content,
}

impl fmt::Display for Inspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "connection",
            Self::Content => "content",
        })
    }
}

/// Scan of requests for credentials and other secrets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RequestScan {
    /// Requests are not scanned.
    #[default]
    Off,
    /// Requests are scanned for secrets, and a finding is logged.
    Warn,
    /// Requests are scanned for secrets, and a request with a finding is denied.
    Block,
}

impl fmt::Display for RequestScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Warn => "warn",
            Self::Block => "block",
        })
    }
}

/// An entry of `egress.allow`: a host as text, or `{host: HOST, inspect: …, dlp: …}`. A host may have a port: `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowSpec {
    /// The host, or a domain wildcard: `*.example.com` covers `example.com` and every name below it.
    pub host: AllowedHost,
    /// The port. `None`: 80 and 443. For several other ports, the host has an entry for each.
    pub port: Option<u16>,
    /// The host's inspection by pipelock. `None`: the value of another entry for the same host, else `connection`.
    pub inspect: Option<Inspect>,
    /// The search by egress for credentials in requests to the host. `None`: that of the bottle.
    pub dlp: Option<RequestScan>,
}

impl From<AllowedEndpoint> for AllowSpec {
    fn from(endpoint: AllowedEndpoint) -> Self {
        Self { host: endpoint.host(), port: endpoint.port(), inspect: None, dlp: None }
    }
}

impl AllowSpec {
    /// Sets the host's inspection.
    #[must_use]
    pub const fn with_inspect(mut self, inspect: Inspect) -> Self {
        self.inspect = Some(inspect);
        self
    }

    /// Sets the search for credentials in requests to the host.
    #[must_use]
    pub const fn with_dlp(mut self, dlp: RequestScan) -> Self {
        self.dlp = Some(dlp);
        self
    }

    fn endpoint(&self) -> String {
        self.port.map_or_else(|| self.host.to_string(), |port| format!("{}:{port}", self.host))
    }
}

/// A host, its inspection by pipelock, and the search by egress for credentials in requests to it.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AllowForm {
    /// The host, or a domain wildcard: `*.example.com` covers `example.com` and every name below it. Ports: 80 and 443, or
    /// the one that is written: `example.com:8443`.
    host: AllowedEndpoint,
    /// The host's inspection by pipelock. Default: the value of another entry for the same host, else `connection`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inspect: Option<Inspect>,
    /// The search for credentials in requests to the host. Default: that of the longest `*.` entry that covers it, else
    /// that of the bottle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dlp: Option<RequestScan>,
}

impl Serialize for AllowSpec {
    /// Writes the short form if only the host is set.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.inspect, self.dlp) {
            (None, None) => serializer.serialize_str(&self.endpoint()),
            (inspect, dlp) => {
                let host = self.endpoint().parse().map_err(serde::ser::Error::custom)?;
                AllowForm { host, inspect, dlp }.serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for AllowSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = AllowSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a host, or `{host: HOST, inspect: connection}`")
            }

            fn visit_str<E: de::Error>(self, host: &str) -> Result<AllowSpec, E> {
                AllowedEndpoint::deserialize(host.into_deserializer()).map(AllowSpec::from)
            }

            fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<AllowSpec, A::Error> {
                let form = AllowForm::deserialize(de::value::MapAccessDeserializer::new(access))?;
                Ok(AllowSpec { inspect: form.inspect, dlp: form.dlp, ..AllowSpec::from(form.host) })
            }
        }

        deserializer.deserialize_any(Form)
    }
}

impl JsonSchema for AllowSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AllowSpec".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let (host, mapping) = (generator.subschema_for::<AllowedEndpoint>(), generator.subschema_for::<AllowForm>());
        schemars::json_schema!({
            "description": "A host as text, or `{host: HOST, inspect: connection|content, dlp: off|warn|block}`. Its ports are 80 and 443, or the one of `HOST:PORT`.",
            "anyOf": [host, mapping],
        })
    }
}
