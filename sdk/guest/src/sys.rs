//! The host's functions, one safe wrapper each.
//!
//! They are declared anew beside the `proxy-wasm` crate's own, since that turns a status it does not expect into a panic,
//! and a panic ends the VM. Here a status is a number until [`status`] has looked at it, so whatever a host answers is a
//! value. The making of calls still goes through the crate ([`crate::callout`], [`crate::grpc`]): its dispatcher only delivers answers
//! to calls it has made.

use std::ptr::null_mut;

use portcullis_abi::pairs::{self, Pairs};
use portcullis_abi::{BufferType, MapType, MetricType, Status, StreamType};

#[allow(unsafe_code, reason = "these are the ABI's imports, which no type system has checked")]
mod raw {
    //! As the ABI has them, with plain numbers for its enumerations.
    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub(super) fn proxy_get_current_time_nanoseconds(out: *mut u64) -> u32;
        pub(super) fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
        pub(super) fn proxy_set_effective_context(id: u32) -> u32;
        pub(super) fn proxy_get_header_map_value(
            map: u32,
            name: *const u8,
            name_len: usize,
            out: *mut *mut u8,
            out_len: *mut usize,
        ) -> u32;
        pub(super) fn proxy_get_header_map_pairs(map: u32, out: *mut *mut u8, out_len: *mut usize) -> u32;
        pub(super) fn proxy_replace_header_map_value(
            map: u32,
            name: *const u8,
            name_len: usize,
            value: *const u8,
            value_len: usize,
        ) -> u32;
        pub(super) fn proxy_add_header_map_value(
            map: u32,
            name: *const u8,
            name_len: usize,
            value: *const u8,
            value_len: usize,
        ) -> u32;
        pub(super) fn proxy_remove_header_map_value(map: u32, name: *const u8, name_len: usize) -> u32;
        pub(super) fn proxy_get_buffer_bytes(
            buffer: u32,
            start: usize,
            max: usize,
            out: *mut *mut u8,
            out_len: *mut usize,
        ) -> u32;
        pub(super) fn proxy_set_buffer_bytes(
            buffer: u32,
            start: usize,
            size: usize,
            data: *const u8,
            len: usize,
        ) -> u32;
        pub(super) fn proxy_continue_stream(stream: u32) -> u32;
        pub(super) fn proxy_send_local_response(
            status: u32,
            details: *const u8,
            details_len: usize,
            body: *const u8,
            body_len: usize,
            fields: *const u8,
            fields_len: usize,
            grpc_status: i32,
        ) -> u32;
        pub(super) fn proxy_get_property(
            path: *const u8,
            path_len: usize,
            out: *mut *mut u8,
            out_len: *mut usize,
        ) -> u32;
        pub(super) fn proxy_set_property(path: *const u8, path_len: usize, value: *const u8, value_len: usize) -> u32;
        pub(super) fn proxy_get_shared_data(
            key: *const u8,
            key_len: usize,
            out: *mut *mut u8,
            out_len: *mut usize,
            out_cas: *mut u32,
        ) -> u32;
        pub(super) fn proxy_set_shared_data(
            key: *const u8,
            key_len: usize,
            value: *const u8,
            value_len: usize,
            cas: u32,
        ) -> u32;
        pub(super) fn proxy_call_foreign_function(
            name: *const u8,
            name_len: usize,
            argument: *const u8,
            argument_len: usize,
            out: *mut *mut u8,
            out_len: *mut usize,
        ) -> u32;
        pub(super) fn proxy_define_metric(kind: u32, name: *const u8, name_len: usize, out: *mut u32) -> u32;
        pub(super) fn proxy_increment_metric(id: u32, delta: i64) -> u32;
        pub(super) fn proxy_record_metric(id: u32, value: u64) -> u32;
        pub(super) fn proxy_get_metric(id: u32, out: *mut u64) -> u32;
        pub(super) fn proxy_grpc_send(token: u32, message: *const u8, len: usize, end: bool) -> u32;
        pub(super) fn proxy_grpc_close(token: u32) -> u32;
        pub(super) fn proxy_grpc_cancel(token: u32) -> u32;
        pub(super) fn proxy_get_status(code: *mut u32, out: *mut *mut u8, out_len: *mut usize) -> u32;
    }
}

/// What a host answered; a number that the ABI does not list is a failure of the host.
fn status(number: u32) -> Result<(), Status> {
    match Status::try_from(number) {
        Ok(Status::Ok) => Ok(()),
        Ok(other) => Err(other),
        Err(_) => Err(Status::InternalFailure),
    }
}

/// A value that a host hands over: a block that `proxy_on_memory_allocate` gave it, now ours.
struct Given {
    data: *mut u8,
    len: usize,
}

impl Given {
    const NOTHING: Self = Self { data: null_mut(), len: 0 };

    #[allow(unsafe_code, reason = "the ABI hands values over as an address and a length")]
    fn take(self) -> Vec<u8> {
        if self.data.is_null() || self.len == 0 {
            return Vec::new();
        }
        // SAFETY: the ABI has hosts fill a block that they got from `proxy_on_memory_allocate` with this very length, which
        // `proxy-wasm` allocates as a boxed slice of bytes and then forgets.
        unsafe { Vec::from_raw_parts(self.data, self.len, self.len) }
    }
}

macro_rules! call {
    ($function:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: every pointer is to memory that lives for the call, and each length is that memory's own. The host reads
        // or fills what it is given and keeps none of it.
        #[allow(unsafe_code, reason = "these are the ABI's imports")]
        let number = unsafe { raw::$function($($argument),*) };
        status(number)
    }};
}

/// The wall clock, in nanoseconds since the Unix epoch.
pub(crate) fn now() -> u64 {
    let mut now = 0;
    let _zero = call!(proxy_get_current_time_nanoseconds(&raw mut now));
    now
}

pub(crate) fn set_tick(period_ms: u32) {
    let _unticked = call!(proxy_set_tick_period_milliseconds(period_ms));
}

pub(crate) fn set_effective_context(id: u32) -> Result<(), Status> {
    call!(proxy_set_effective_context(id))
}

pub(crate) fn header(map: MapType, name: &str) -> Result<Vec<u8>, Status> {
    let mut given = Given::NOTHING;
    call!(proxy_get_header_map_value(map.into(), name.as_ptr(), name.len(), &raw mut given.data, &raw mut given.len))?;
    Ok(given.take())
}

/// All entries; none where the map is not there or not as the ABI says.
pub(crate) fn headers(map: MapType) -> Vec<(Vec<u8>, Vec<u8>)> {
    let bytes = header_pairs(map);
    let list = Pairs::parse(&bytes);
    list.map(|pairs| pairs.map(|(name, value)| (name.to_vec(), value.to_vec())).collect()).unwrap_or_default()
}

/// All entries, in the ABI's form; nothing where the map is not there.
pub(crate) fn header_pairs(map: MapType) -> Vec<u8> {
    let mut given = Given::NOTHING;
    match call!(proxy_get_header_map_pairs(map.into(), &raw mut given.data, &raw mut given.len)) {
        Ok(()) => given.take(),
        Err(_) => Vec::new(),
    }
}

pub(crate) fn set_header(map: MapType, name: &str, value: &[u8]) -> Result<(), Status> {
    call!(proxy_replace_header_map_value(map.into(), name.as_ptr(), name.len(), value.as_ptr(), value.len()))
}

pub(crate) fn add_header(map: MapType, name: &str, value: &[u8]) -> Result<(), Status> {
    call!(proxy_add_header_map_value(map.into(), name.as_ptr(), name.len(), value.as_ptr(), value.len()))
}

pub(crate) fn remove_header(map: MapType, name: &str) -> Result<(), Status> {
    call!(proxy_remove_header_map_value(map.into(), name.as_ptr(), name.len()))
}

pub(crate) fn buffer(buffer: BufferType, max: usize) -> Vec<u8> {
    let mut given = Given::NOTHING;
    match call!(proxy_get_buffer_bytes(buffer.into(), 0, max, &raw mut given.data, &raw mut given.len)) {
        Ok(()) => given.take(),
        Err(_) => Vec::new(),
    }
}

/// Replaces the first `size` bytes.
pub(crate) fn set_buffer(buffer: BufferType, size: usize, data: &[u8]) -> Result<(), Status> {
    call!(proxy_set_buffer_bytes(buffer.into(), 0, size, data.as_ptr(), data.len()))
}

pub(crate) fn continue_stream(stream: StreamType) {
    let _over = call!(proxy_continue_stream(stream.into()));
}

pub(crate) fn send_local_response(reply_status: u16, details: &str, body: &[u8], fields: &[(Vec<u8>, Vec<u8>)]) {
    let fields = serialised(fields);
    let _over = call!(proxy_send_local_response(
        u32::from(reply_status),
        details.as_ptr(),
        details.len(),
        body.as_ptr(),
        body.len(),
        fields.as_ptr(),
        fields.len(),
        -1
    ));
}

fn serialised(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let list = || fields.iter().map(|(name, value)| (&name[..], &value[..]));
    let mut bytes = Vec::with_capacity(pairs::size(list()));
    pairs::write(list, |piece| bytes.extend_from_slice(piece));
    bytes
}

pub(crate) fn property(path: &[u8]) -> Result<Vec<u8>, Status> {
    let mut given = Given::NOTHING;
    call!(proxy_get_property(path.as_ptr(), path.len(), &raw mut given.data, &raw mut given.len))?;
    Ok(given.take())
}

pub(crate) fn set_property(path: &[u8], value: &[u8]) -> Result<(), Status> {
    call!(proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()))
}

/// A value and the number to present for changing it.
pub(crate) fn shared_data(key: &[u8]) -> Result<(Vec<u8>, u32), Status> {
    let (mut given, mut cas) = (Given::NOTHING, 0);
    call!(proxy_get_shared_data(key.as_ptr(), key.len(), &raw mut given.data, &raw mut given.len, &raw mut cas))?;
    Ok((given.take(), cas))
}

pub(crate) fn set_shared_data(key: &[u8], value: &[u8], cas: u32) -> Result<(), Status> {
    call!(proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas))
}

/// What a foreign function makes of its argument; [`Status::NotFound`] where the host has none of this name.
pub(crate) fn foreign_function(name: &str, argument: &[u8]) -> Result<Vec<u8>, Status> {
    let mut given = Given::NOTHING;
    let (data, len) = (&raw mut given.data, &raw mut given.len);
    call!(proxy_call_foreign_function(name.as_ptr(), name.len(), argument.as_ptr(), argument.len(), data, len))?;
    Ok(given.take())
}

pub(crate) fn define_metric(kind: MetricType, name: &str) -> Result<u32, Status> {
    let mut id = 0;
    call!(proxy_define_metric(kind.into(), name.as_ptr(), name.len(), &raw mut id))?;
    Ok(id)
}

pub(crate) fn increment_metric(id: u32, delta: i64) -> Result<(), Status> {
    call!(proxy_increment_metric(id, delta))
}

pub(crate) fn record_metric(id: u32, value: u64) -> Result<(), Status> {
    call!(proxy_record_metric(id, value))
}

pub(crate) fn metric(id: u32) -> Result<u64, Status> {
    let mut value = 0;
    call!(proxy_get_metric(id, &raw mut value))?;
    Ok(value)
}

pub(crate) fn send_grpc(token: u32, message: &[u8]) -> Result<(), Status> {
    call!(proxy_grpc_send(token, message.as_ptr(), message.len(), false))
}

pub(crate) fn close_grpc(token: u32) {
    let _over = call!(proxy_grpc_close(token));
}

pub(crate) fn cancel_grpc(token: u32) {
    let _over = call!(proxy_grpc_cancel(token));
}

/// What a failed callout has left behind: its status and message.
pub(crate) fn callout_status() -> (u32, Vec<u8>) {
    let (mut given, mut code) = (Given::NOTHING, 0);
    match call!(proxy_get_status(&raw mut code, &raw mut given.data, &raw mut given.len)) {
        Ok(()) => (code, given.take()),
        Err(_) => (0, Vec::new()),
    }
}
