//! Header access by bytes, on the map that belongs to the running phase.
//!
//! Statuses are dropped on purpose: `proxy-wasm` answers `Ok` or panics, so there is nothing left to handle.

use proxy_wasm::hostcalls;
use proxy_wasm::types::MapType;

/// The map a filter works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Request headers.
    Request,
    /// Response headers.
    Response,
}

impl Side {
    fn map(self) -> MapType {
        match self {
            Self::Request => MapType::HttpRequestHeaders,
            Self::Response => MapType::HttpResponseHeaders,
        }
    }

    /// The first entry of this name.
    #[must_use]
    pub fn get(self, name: &str) -> Option<Vec<u8>> {
        hostcalls::get_map_value_bytes(self.map(), name).ok().flatten()
    }

    /// Leaves exactly one entry of this name.
    pub fn set(self, name: &str, value: impl AsRef<[u8]>) {
        let _ok = hostcalls::set_map_value_bytes(self.map(), name, Some(value.as_ref()));
    }

    /// Removes every entry of this name.
    pub fn remove(self, name: &str) {
        let _ok = hostcalls::remove_map_value(self.map(), name);
    }
}
