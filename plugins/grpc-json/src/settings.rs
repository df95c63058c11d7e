//! Settings as an operator writes them, and as the policy reads them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_sdk::Config;
use portcullis_sdk::schema::{Piece, Schema};
use prost_reflect::{DescriptorPool, DeserializeOptions, SerializeOptions};
use serde::Deserialize;

use crate::json::Json;
use crate::rules::Rules;

/// REST and gRPC-Web clients to a gRPC upstream.
#[derive(Config)]
pub(crate) struct Settings {
    /// The descriptor set of the services, in base64: `protoc --include_imports --descriptor_set_out=…`, or `buf build -o …`.
    /// Without it only gRPC-Web is served.
    descriptors: Option<String>,
    /// The services whose annotations count, by their full names; all of the set unless told otherwise.
    #[serde(default)]
    services: Vec<String>,
    /// Methods without annotations are `POST /SERVICE/METHOD`, with the message as JSON.
    #[serde(default)]
    methods_without_rules: bool,
    /// Whether gRPC-Web is served.
    #[serde(default = "yes")]
    grpc_web: bool,
    /// What becomes of a request that is no call.
    #[serde(default)]
    unmatched: Unmatched,
    /// What becomes of fields in a body or a query that the message does not have.
    #[serde(default)]
    unknown_fields: UnknownFields,
    /// How answers are written.
    #[serde(default)]
    json: Written,
    /// How long a request's body, an answer that is not streamed, and each message of a stream may be, in bytes.
    #[serde(default = "default_max_bytes")]
    max_bytes: usize,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident: $schema:literal { $($(#[$of:meta])* $variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum $name { $($(#[$of])* $variant),* }

        impl Schema for $name {
            const SCHEMA: &'static [Piece] = &[Piece::Text($schema)];
        }
    };
}

words! {
    /// What becomes of a request that is no call.
    Unmatched: r#"{"enum":["pass","refuse"]}"# {
        /// It goes on as it is.
        #[default]
        Pass,
        /// 404, or 405 where only the method is another.
        Refuse,
    }
}

words! {
    /// What becomes of fields that the message does not have.
    UnknownFields: r#"{"enum":["refuse","ignore"]}"# {
        /// 400.
        #[default]
        Refuse,
        /// They are left out.
        Ignore,
    }
}

words! {
    /// Names of fields.
    Names: r#"{"enum":["camel","proto"]}"# {
        /// As the JSON mapping has them.
        #[default]
        Camel,
        /// As the `.proto` file has them.
        Proto,
    }
}

words! {
    /// Values of enums.
    Enums: r#"{"enum":["names","numbers"]}"# {
        /// By name.
        #[default]
        Names,
        /// By number.
        Numbers,
    }
}

/// How answers are written.
#[derive(Config, Default)]
struct Written {
    /// `camel` (`pageSize`), or `proto` (`page_size`).
    #[serde(default)]
    names: Names,
    /// `names` or `numbers`.
    #[serde(default)]
    enums: Enums,
    /// Fields that have their default value are written too.
    #[serde(default)]
    defaults: bool,
}

fn yes() -> bool {
    true
}

fn default_max_bytes() -> usize {
    1024 * 1024
}

/// As read from the settings.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Nothing: only gRPC-Web.
    pub(crate) rules: Option<Rules>,
    pub(crate) grpc_web: bool,
    pub(crate) unmatched: Unmatched,
    pub(crate) ignores_unknown: bool,
    pub(crate) json: Json,
    pub(crate) max_bytes: usize,
}

impl Settings {
    /// # Errors
    /// What an operator has to change.
    pub(crate) fn checked(self) -> Result<Plan, String> {
        if self.max_bytes == 0 {
            return Err("`max_bytes` is at least 1".to_owned());
        }
        if self.descriptors.is_none() && !self.grpc_web {
            return Err("without `descriptors` and without `grpc_web` there is nothing to do".to_owned());
        }
        let rules = self.descriptors.as_deref().map(|text| {
            let bytes: String = text.split_ascii_whitespace().collect();
            let bytes = STANDARD.decode(bytes).map_err(|why| format!("`descriptors` is no base64: {why}"))?;
            let pool = DescriptorPool::decode(bytes.as_slice())
                .map_err(|why| format!("`descriptors` is no descriptor set with its imports: {why}"))?;
            Rules::of(&pool, &self.services, self.methods_without_rules)
        });
        let ignores_unknown = self.unknown_fields == UnknownFields::Ignore;
        Ok(Plan {
            rules: rules.transpose()?,
            grpc_web: self.grpc_web,
            unmatched: self.unmatched,
            ignores_unknown,
            json: Json {
                read: DeserializeOptions::new().deny_unknown_fields(!ignores_unknown),
                write: SerializeOptions::new()
                    .skip_default_fields(!self.json.defaults)
                    .use_enum_numbers(self.json.enums == Enums::Numbers)
                    .use_proto_field_name(self.json.names == Names::Proto),
            },
            max_bytes: self.max_bytes,
        })
    }
}
