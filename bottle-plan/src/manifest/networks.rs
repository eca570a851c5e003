//! The owner and the subnets of a bottle's networks, in both written forms.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::value::Subnet;

/// The owner and the subnets of the bottle's networks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NetworksSpec {
    /// The owner, which creates and removes the networks. Default: `compose`.
    pub mode: NetworkMode,
    /// The internal network's subnet. Default: the launch picks one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"10.99.0.0/28")]
    pub internal_subnet: Option<Subnet>,
    /// The egress network's subnet. Default: the launch picks one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_subnet: Option<Subnet>,
}

/// The owner of a bottle's networks, which creates and removes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// The networks belong to the Compose project, so that `docker compose down` removes them.
    #[default]
    Compose,
    /// The launcher creates the networks before `up` and removes them after `down`. Pipelock is given the internal
    /// network's subnet.
    External,
}

/// The written forms of [`NetworksSpec`], for the schema.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "it exists for the schema derived from it")]
pub(super) enum NetworksForm {
    /// The mode alone.
    Mode(NetworkMode),
    /// The mode and subnets.
    Mapping(NetworksSpec),
}

/// Deserializes the short form `networks: external` as `networks: {mode: external}`, or a mapping.
pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NetworksSpec, D::Error> {
    struct Form;

    impl<'de> Visitor<'de> for Form {
        type Value = NetworksSpec;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("`compose`, `external` or a mapping")
        }

        fn visit_str<E: de::Error>(self, mode: &str) -> Result<NetworksSpec, E> {
            let mode = NetworkMode::deserialize(mode.into_deserializer())?;
            Ok(NetworksSpec { mode, ..NetworksSpec::default() })
        }

        fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<NetworksSpec, A::Error> {
            NetworksSpec::deserialize(de::value::MapAccessDeserializer::new(access))
        }
    }

    deserializer.deserialize_any(Form)
}
