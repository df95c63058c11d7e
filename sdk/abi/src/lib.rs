//! The Proxy-Wasm ABI's numbers and wire forms, for hosts and test hosts.
//!
//! What is here is fixed by the ABI (0.1.0 to 0.2.1) and by what Envoy does with it; nothing here decides anything.
//! `no_std` and without dependencies, so that every side of the border can share it.
#![no_std]

pub mod calendar;
pub mod limit;
pub mod pairs;
pub mod protobuf;

macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $number:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum $name { $($(#[$item_doc])* $item = $number,)* }

        impl TryFrom<u32> for $name {
            type Error = Status;

            /// A number the ABI does not list is the guest's mistake: `BadArgument`.
            fn try_from(number: u32) -> Result<Self, Status> {
                match number {
                    $($number => Ok(Self::$item),)*
                    _ => Err(Status::BadArgument),
                }
            }
        }

        impl From<$name> for u32 {
            fn from(value: $name) -> u32 {
                value as u32
            }
        }
    };
}

numbers! {
    /// What a hostcall answers.
    ///
    /// 5, 9, 11 and everything from 13 on are left out: Rust's SDK turns the integer into an enum that lacks them, which
    /// is undefined behaviour in the guest. A host must never answer them.
    Status {
        /// Done.
        Ok = 0,
        /// No such key, buffer, queue or name.
        NotFound = 1,
        /// An argument is out of range, or the target is not available in this phase.
        BadArgument = 2,
        /// The value cannot be serialised.
        SerializationFailure = 3,
        /// The argument cannot be parsed.
        ParseFailure = 4,
        /// A pointer or length lies outside guest memory.
        InvalidMemoryAccess = 6,
        /// The queue is empty.
        Empty = 7,
        /// The compare-and-swap number is stale.
        CasMismatch = 8,
        /// The host failed.
        InternalFailure = 10,
        /// The host lacks this.
        Unimplemented = 12,
    }
}

numbers! {
    /// How serious a log line is.
    LogLevel {
        /// Step by step.
        Trace = 0,
        /// For the plugin's author.
        Debug = 1,
        /// For the operator.
        Info = 2,
        /// Something is off.
        Warn = 3,
        /// Something failed.
        Error = 4,
        /// The plugin cannot go on.
        Critical = 5,
    }
}

numbers! {
    /// Which bytes a buffer hostcall means.
    BufferType {
        /// The request body held for this filter.
        HttpRequestBody = 0,
        /// The response body held for this filter.
        HttpResponseBody = 1,
        /// Bytes from the client of a TCP filter.
        DownstreamData = 2,
        /// Bytes from the upstream of a TCP filter.
        UpstreamData = 3,
        /// The body of the callout response being delivered.
        HttpCallResponseBody = 4,
        /// The gRPC message being delivered.
        GrpcReceiveBuffer = 5,
        /// The VM's configuration.
        VmConfiguration = 6,
        /// The plugin's configuration.
        PluginConfiguration = 7,
        /// The arguments of a foreign function.
        CallData = 8,
    }
}

numbers! {
    /// Which header map a hostcall means.
    MapType {
        /// The request's head.
        HttpRequestHeaders = 0,
        /// The request's trailers.
        HttpRequestTrailers = 1,
        /// The response's head.
        HttpResponseHeaders = 2,
        /// The response's trailers.
        HttpResponseTrailers = 3,
        /// A gRPC call's initial metadata.
        GrpcReceiveInitialMetadata = 4,
        /// A gRPC call's trailing metadata.
        GrpcReceiveTrailingMetadata = 5,
        /// The head of the callout response being delivered.
        HttpCallResponseHeaders = 6,
        /// The trailers of the callout response being delivered.
        HttpCallResponseTrailers = 7,
    }
}

numbers! {
    /// Which direction of which stream to continue or close.
    StreamType {
        /// From the client to the upstream.
        HttpRequest = 0,
        /// From the upstream to the client.
        HttpResponse = 1,
        /// A TCP filter's client side.
        Downstream = 2,
        /// A TCP filter's upstream side.
        Upstream = 3,
    }
}

numbers! {
    /// What a metric is.
    MetricType {
        /// Only grows.
        Counter = 0,
        /// Goes up and down.
        Gauge = 1,
        /// A distribution.
        Histogram = 2,
    }
}

/// The ABI a module speaks, told by its marker export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 0.1.0: Rust SDK 0.1.
    V0_1_0,
    /// 0.2.0: Go SDK.
    V0_2_0,
    /// 0.2.1: Rust SDK 0.2 and later, C++ SDK, AssemblyScript SDK.
    V0_2_1,
}

/// What every marker export begins with.
pub const MARKER_PREFIX: &str = "proxy_abi_version_";

impl Version {
    /// The version whose marker `export` is.
    #[must_use]
    pub fn from_marker(export: &str) -> Option<Self> {
        match export.strip_prefix(MARKER_PREFIX)? {
            "0_1_0" => Some(Self::V0_1_0),
            "0_2_0" => Some(Self::V0_2_0),
            "0_2_1" => Some(Self::V0_2_1),
            _ => None,
        }
    }

    /// The version as people write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_2_1 => "0.2.1",
        }
    }
}
