//! Keys that can be written in more than one way, and maps that reject duplicate keys.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::value::{EnvName, HostName};

/// Deserializes a map and rejects duplicate keys. A plain map would silently keep the last value.
pub(super) fn unique_map<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord + fmt::Display,
    V: Deserialize<'de>,
{
    struct Unique<K, V>(PhantomData<(K, V)>);

    impl<'de, K: Deserialize<'de> + Ord + fmt::Display, V: Deserialize<'de>> Visitor<'de> for Unique<K, V> {
        type Value = BTreeMap<K, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a mapping")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some(key) = access.next_key::<K>()? {
                if map.contains_key(&key) {
                    return Err(de::Error::custom(format_args!("`{key}` is given twice; each key may be given once")));
                }
                map.insert(key, access.next_value()?);
            }
            Ok(map)
        }
    }

    deserializer.deserialize_map(Unique(PhantomData))
}

/// The source of an environment variable's value for the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvSpec {
    /// The value itself. It is written to the Compose file, so it must not be a secret. In a manifest's text, `$$`
    /// stands for `$`.
    Literal(String),
    /// The value of this variable of the host's environment at launch. `None`: the variable of the same name. `$NAME`
    /// and `${NAME}` are short forms.
    Forward(Option<EnvName>),
    /// A dummy value for a credential that egress injects. `None`: a default dummy.
    Placeholder(Option<String>),
}

impl JsonSchema for EnvSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "EnvSpec".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let name = generator.subschema_for::<EnvName>();
        let mapping = |key: &str, description: &str, other: &schemars::Schema| {
            serde_json::json!({
                "type": "object",
                "description": description,
                "properties": { key: { "anyOf": [{ "const": true }, other] } },
                "required": [key],
                "additionalProperties": false,
            })
        };
        schemars::json_schema!({
            "anyOf": [
                { "type": ["string", "integer", "boolean"],
                  "description": "The value itself, written to the Compose file and so not for secrets; in which `$$` stands for `$`; or `$NAME` or `${NAME}` for the value of a variable of the host's environment." },
                mapping("forward", "The value of this variable of the host's environment at launch.", &name),
                mapping("placeholder", "A dummy for a credential that egress injects.", &schemars::json_schema!({"type": "string"})),
            ]
        })
    }
}

impl Serialize for EnvSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = match self {
            Self::Literal(text) => return serializer.serialize_str(&text.replace('$', "$$")),
            Self::Forward(_) | Self::Placeholder(_) => serializer.serialize_map(Some(1))?,
        };
        match self {
            Self::Forward(Some(name)) => map.serialize_entry("forward", name)?,
            Self::Forward(None) => map.serialize_entry("forward", &true)?,
            Self::Placeholder(Some(dummy)) => map.serialize_entry("placeholder", dummy)?,
            Self::Placeholder(None) => map.serialize_entry("placeholder", &true)?,
            Self::Literal(_) => {}
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for EnvSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = EnvSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, `{forward: true}`, `{forward: NAME}` or `{placeholder: true}`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<EnvSpec, E> {
                if text.contains('\0') {
                    return Err(E::custom("a variable cannot hold the character NUL"));
                }
                from_text(text).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<EnvSpec, E> {
                Ok(EnvSpec::Literal(number.to_string()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<EnvSpec, E> {
                Ok(EnvSpec::Literal(number.to_string()))
            }

            fn visit_bool<E: de::Error>(self, truth: bool) -> Result<EnvSpec, E> {
                Ok(EnvSpec::Literal(truth.to_string()))
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<EnvSpec, E> {
                Err(E::custom("a number with a point or exponent must be in quotes, so that it stays as it is written"))
            }

            fn visit_unit<E: de::Error>(self) -> Result<EnvSpec, E> {
                Err(E::custom("it has no value; accepted: text (`\"\"` for an empty one), or `{forward: true}`"))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<EnvSpec, A::Error> {
                let no = |what: &str| {
                    de::Error::custom(format_args!("`{what}: false` says nothing; leave the variable out"))
                };
                let spec = match access.next_key::<String>()?.as_deref() {
                    Some("forward") => match access.next_value::<OneOf<EnvName>>()?.0 {
                        Ok(true) => EnvSpec::Forward(None),
                        Ok(false) => return Err(no("forward")),
                        Err(name) => EnvSpec::Forward(Some(name)),
                    },
                    Some("placeholder") => match access.next_value::<OneOf<String>>()?.0 {
                        Ok(true) => EnvSpec::Placeholder(None),
                        Ok(false) => return Err(no("placeholder")),
                        Err(dummy) => EnvSpec::Placeholder(Some(dummy)),
                    },
                    Some(other) => return Err(de::Error::unknown_field(other, &["forward", "placeholder"])),
                    None => {
                        return Err(de::Error::custom(
                            "it is empty; accepted: `{forward: true}` or `{placeholder: true}`",
                        ));
                    }
                };
                match access.next_key::<String>()? {
                    None => Ok(spec),
                    Some(_) => Err(de::Error::custom("only one of `forward` and `placeholder` may be given")),
                }
            }
        }

        deserializer.deserialize_any(Form)
    }
}

/// Parses a text value of `env`. `$NAME` or `${NAME}` alone forwards a variable, and `$$` stands for `$`. A variable
/// within a longer text is an error, because nothing is interpolated.
fn from_text(text: &str) -> Result<EnvSpec, String> {
    let whole = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).or_else(|| text.strip_prefix('$'));
    if let Some(name) = whole.and_then(|name| name.parse::<EnvName>().ok()) {
        return Ok(EnvSpec::Forward(Some(name)));
    }
    let mut literal = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        literal.push_str(before);
        literal.push('$');
        rest = after.strip_prefix('$').unwrap_or(after);
        let refers = after.starts_with(|c: char| c.is_ascii_alphabetic() || "_{".contains(c));
        if refers {
            return Err(reference_within(after));
        }
    }
    literal.push_str(rest);
    Ok(EnvSpec::Literal(literal))
}

/// Returns the error for a variable within a longer text. `after` is the text after its `$`.
fn reference_within(after: &str) -> String {
    let braced = after.starts_with('{');
    let name = after.trim_start_matches('{');
    let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
    let (shown, name) = match name[..end].parse::<EnvName>() {
        Ok(name) if name.check_not_a_token().is_ok() && braced => (format!("${{{name}}}"), name.to_string()),
        Ok(name) if name.check_not_a_token().is_ok() => (format!("${name}"), name.to_string()),
        _ => ("${…}".to_owned(), "NAME".to_owned()),
    };
    format!(
        "a variable within a longer text, `{shown}`, is not interpolated; accepted: `${name}` or `{{forward: {name}}}` as \
         the whole value, or `$$` for a literal `$`"
    )
}

/// A boolean, or a `T` written as a string.
struct OneOf<T>(Result<bool, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOf<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Form<T> {
            type Value = OneOf<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true` or text")
            }

            fn visit_bool<E: de::Error>(self, truth: bool) -> Result<OneOf<T>, E> {
                Ok(OneOf(Ok(truth)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOf<T>, E> {
                T::deserialize(text.into_deserializer()).map(|value| OneOf(Err(value)))
            }
        }

        deserializer.deserialize_any(Form(PhantomData))
    }
}

/// A part that is off, on with its defaults (`true`), or on with the settings of a mapping.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Toggle<T> {
    /// `false`, or absent.
    #[default]
    Off,
    /// `true`, or a mapping.
    On(T),
}

impl<T> Toggle<T> {
    /// Returns the settings, or `None` if the part is off.
    pub const fn as_option(&self) -> Option<&T> {
        match self {
            Self::Off => None,
            Self::On(value) => Some(value),
        }
    }
}

impl<T: JsonSchema> JsonSchema for Toggle<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Toggle_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [{ "type": "boolean" }, generator.subschema_for::<T>()] })
    }
}

impl<T: Serialize> Serialize for Toggle<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_bool(false),
            Self::On(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Toggle<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for Form<T> {
            type Value = Toggle<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, `false` or a mapping")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Toggle<T>, E> {
                Ok(if on { Toggle::On(T::default()) } else { Toggle::Off })
            }

            fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Toggle<T>, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(access)).map(Toggle::On)
            }
        }

        deserializer.deserialize_any(Form(PhantomData))
    }
}

/// Deserializes a map from host names to IP addresses.
pub(super) fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<HostName, IpAddr>, D::Error> {
    let map: BTreeMap<HostName, Address> = unique_map(deserializer)?;
    Ok(map.into_iter().map(|(host, address)| (host, address.0)).collect())
}

/// An IP address whose errors say what is accepted.
struct Address(IpAddr);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        const ACCEPTED: &str = "an IP address as text, such as `198.51.100.7`";

        impl Visitor<'_> for Form {
            type Value = Address;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(ACCEPTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Address, E> {
                let address = text.parse().map(Address);
                address.map_err(|_| E::custom(format_args!("it is not an IP address; accepted: {ACCEPTED}")))
            }
        }

        deserializer.deserialize_str(Form)
    }
}
