//! The ABI's imports, answered natively; and its exports, which the `proxy-wasm` crate answers.
//!
//! This file holds the crate's `unsafe`: the ABI is made of addresses and lengths. A row decodes its arguments, asks what is
//! lent to its thread, and gives the guest what it said, as the rows of `gateway/vm` do.

#![allow(unsafe_code, reason = "the ABI is made of addresses and lengths, and its functions are found by their names")]
#![allow(clippy::too_many_arguments, reason = "as many as the ABI says")]

use bytes::Bytes;
use portcullis_abi::pairs::{self, Pairs};
use portcullis_abi::{BufferType, MapType, MetricType, Status, StreamType};
use portcullis_core::event::End;
use portcullis_core::host::{GuestCallout, GuestGrpc, GuestReply};

use crate::lent::{Lent, answer, with};

// Without this nothing would tell the linker that the guests' side of the ABI is needed.
use proxy_wasm as _;

/// `len` bytes at an address that a guest gave.
fn read<'a>(data: *const u8, len: usize) -> &'a [u8] {
    if data.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: guests are native Rust here, and pass the address and the length of a slice that they hold until the call
    // returns. Nothing that is read this way is kept for longer.
    unsafe { std::slice::from_raw_parts(data, len) }
}

/// Writes a value where a guest wants it.
fn put<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: guests pass the address of a variable of this type, which lives until the call returns.
        unsafe { out.write(value) }
    }
}

/// Gives the guest a value, in a block that its own allocator made.
fn give(out: *mut *mut u8, out_len: *mut usize, value: &[u8]) {
    if value.is_empty() {
        put(out, std::ptr::null_mut());
        put(out_len, 0);
        return;
    }
    // SAFETY: the allocator returns a block of as many bytes as it was asked for, to which nobody else has an address yet.
    let block = unsafe {
        let block = raw::proxy_on_memory_allocate(value.len());
        std::ptr::copy_nonoverlapping(value.as_ptr(), block, value.len());
        block
    };
    put(out, block);
    put(out_len, value.len());
}

/// A guest's list of pairs; a malformed one counts as empty, as on Envoy.
fn list<'a>(data: *const u8, len: usize) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    Pairs::parse(read(data, len)).ok().into_iter().flatten()
}

mod raw {
    //! What the `proxy-wasm` crate exports. Its `Action` is the number that the ABI has.
    unsafe extern "C" {
        pub(super) fn proxy_on_memory_allocate(size: usize) -> *mut u8;
        pub(super) fn proxy_on_context_create(id: u32, root: u32);
        pub(super) fn proxy_on_vm_start(id: u32, size: usize) -> bool;
        pub(super) fn proxy_on_configure(id: u32, size: usize) -> bool;
        pub(super) fn proxy_on_tick(id: u32);
        pub(super) fn proxy_on_http_call_response(id: u32, token: u32, headers: usize, body: usize, trailers: usize);
        pub(super) fn proxy_on_grpc_receive_initial_metadata(id: u32, token: u32, entries: u32);
        pub(super) fn proxy_on_grpc_receive(id: u32, token: u32, size: usize);
        pub(super) fn proxy_on_grpc_receive_trailing_metadata(id: u32, token: u32, entries: u32);
        pub(super) fn proxy_on_grpc_close(id: u32, token: u32, status: u32);
        pub(super) fn proxy_on_queue_ready(id: u32, queue: u32);
        pub(super) fn proxy_on_request_headers(id: u32, count: usize, end: bool) -> u32;
        pub(super) fn proxy_on_request_body(id: u32, size: usize, end: bool) -> u32;
        pub(super) fn proxy_on_request_trailers(id: u32, count: usize) -> u32;
        pub(super) fn proxy_on_response_headers(id: u32, count: usize, end: bool) -> u32;
        pub(super) fn proxy_on_response_body(id: u32, size: usize, end: bool) -> u32;
        pub(super) fn proxy_on_response_trailers(id: u32, count: usize) -> u32;
        pub(super) fn proxy_on_log(id: u32);
        pub(super) fn proxy_on_done(id: u32) -> bool;
        pub(super) fn proxy_on_delete(id: u32);
    }
}

pub(crate) mod callbacks {
    //! A guest's exports, as safe functions.
    use super::raw;

    macro_rules! callbacks {
        ($($name:ident => $export:ident($($argument:ident: $ty:ty),*) $(-> $result:ty)?;)*) => {
            $(pub(crate) fn $name($($argument: $ty),*) $(-> $result)? {
                // SAFETY: the function is the `proxy-wasm` crate's, has this very type, and takes any numbers.
                unsafe { raw::$export($($argument),*) }
            })*
        };
    }

    callbacks! {
        context_create => proxy_on_context_create(id: u32, root: u32);
        vm_start => proxy_on_vm_start(id: u32, size: usize) -> bool;
        configure => proxy_on_configure(id: u32, size: usize) -> bool;
        tick => proxy_on_tick(id: u32);
        http_call_response => proxy_on_http_call_response(
            id: u32, token: u32, headers: usize, body: usize, trailers: usize
        );
        grpc_receive_initial_metadata => proxy_on_grpc_receive_initial_metadata(id: u32, token: u32, entries: u32);
        grpc_receive => proxy_on_grpc_receive(id: u32, token: u32, size: usize);
        grpc_receive_trailing_metadata => proxy_on_grpc_receive_trailing_metadata(id: u32, token: u32, entries: u32);
        grpc_close => proxy_on_grpc_close(id: u32, token: u32, status: u32);
        queue_ready => proxy_on_queue_ready(id: u32, queue: u32);
        request_headers => proxy_on_request_headers(id: u32, count: usize, end: bool) -> u32;
        request_body => proxy_on_request_body(id: u32, size: usize, end: bool) -> u32;
        request_trailers => proxy_on_request_trailers(id: u32, count: usize) -> u32;
        response_headers => proxy_on_response_headers(id: u32, count: usize, end: bool) -> u32;
        response_body => proxy_on_response_body(id: u32, size: usize, end: bool) -> u32;
        response_trailers => proxy_on_response_trailers(id: u32, count: usize) -> u32;
        log => proxy_on_log(id: u32);
        done => proxy_on_done(id: u32) -> bool;
        delete => proxy_on_delete(id: u32);
    }
}

/// Makes of rows the functions that guests are linked to.
macro_rules! imports {
    ($(fn $name:ident($lent:ident; $($argument:ident: $ty:ty),*) $body:block)*) => {
        $(#[unsafe(no_mangle)]
        extern "C" fn $name($($argument: $ty),*) -> u32 {
            answer(stringify!($name), |$lent: &mut Lent| $body)
        })*
    };
}

/// On a thread that no plugin runs on this is the crate's panic hook, for a test's own panic.
#[unsafe(no_mangle)]
extern "C" fn proxy_log(level: u32, message: *const u8, len: usize) -> u32 {
    let text = String::from_utf8_lossy(read(message, len)).into_owned();
    let level = match level {
        0 => "trace",
        1 => "debug",
        2 => "info",
        3 => "warn",
        4 => "error",
        5 => "critical",
        _ => return Status::BadArgument.into(),
    };
    if with(|lent| lent.say(level, text.clone())).is_none() || level == "critical" {
        eprintln!("{text}");
    }
    Status::Ok.into()
}

type Out = *mut *mut u8;

imports! {
    fn proxy_get_log_level(_lent; out: *mut u32) {
        put(out, 0);
        Ok(())
    }

    fn proxy_get_current_time_nanoseconds(lent; out: *mut u64) {
        put(out, lent.exchanges.now.as_nanos());
        Ok(())
    }

    fn proxy_set_tick_period_milliseconds(lent; period: u32) {
        lent.host().set_tick(period);
        Ok(())
    }

    fn proxy_set_effective_context(lent; id: u32) {
        lent.host().set_effective_context(id)
    }

    fn proxy_done(_lent;) {
        Err(Status::NotFound)
    }

    fn proxy_get_status(lent; code: *mut u32, out: Out, len: *mut usize) {
        let (number, message) = lent.contexts.status();
        put(code, number);
        give(out, len, message);
        Ok(())
    }

    fn proxy_call_foreign_function(
        lent; name: *const u8, name_len: usize, args: *const u8, args_len: usize, out: Out, len: *mut usize
    ) {
        let services = lent.services.clone();
        let answer = services.call_foreign(read(name, name_len), read(args, args_len));
        give(out, len, answer.as_deref().unwrap_or_default());
        answer.map(|_| ()).map_err(|number| Status::try_from(number).unwrap_or(Status::InternalFailure))
    }

    fn proxy_get_header_map_value(lent; map: u32, name: *const u8, name_len: usize, out: Out, len: *mut usize) {
        give(out, len, lent.host().header(map.try_into()?, read(name, name_len))?);
        Ok(())
    }

    fn proxy_get_header_map_pairs(lent; map: u32, out: Out, len: *mut usize) {
        let host = lent.host();
        let Some(headers) = host.map(map.try_into()?).filter(|headers| headers.count() > 0) else {
            give(out, len, &[]);
            return Ok(());
        };
        let mut bytes = Vec::with_capacity(pairs::size(headers.iter()));
        pairs::write(|| headers.iter(), |piece| bytes.extend_from_slice(piece));
        give(out, len, &bytes);
        Ok(())
    }

    fn proxy_get_header_map_size(lent; map: u32, out: *mut usize) {
        let host = lent.host();
        put(out, host.map(map.try_into()?).ok_or(Status::BadArgument)?.byte_size());
        Ok(())
    }

    fn proxy_set_header_map_pairs(lent; map: u32, data: *const u8, len: usize) {
        let map: MapType = map.try_into()?;
        lent.host().set_map(map, list(data, len)).map(|_| ())
    }

    fn proxy_add_header_map_value(
        lent; map: u32, name: *const u8, name_len: usize, value: *const u8, value_len: usize
    ) {
        lent.host().add_header(map.try_into()?, read(name, name_len), read(value, value_len)).map(|_| ())
    }

    fn proxy_replace_header_map_value(
        lent; map: u32, name: *const u8, name_len: usize, value: *const u8, value_len: usize
    ) {
        lent.host().replace_header(map.try_into()?, read(name, name_len), read(value, value_len)).map(|_| ())
    }

    fn proxy_remove_header_map_value(lent; map: u32, name: *const u8, name_len: usize) {
        lent.host().remove_header(map.try_into()?, read(name, name_len))
    }

    fn proxy_get_buffer_bytes(lent; buffer: u32, start: usize, max: usize, out: Out, len: *mut usize) {
        let host = lent.host();
        let buffer = host.buffer(buffer.try_into()?)?;
        let bytes: Vec<u8> = buffer.range(start, max).flatten().copied().collect();
        give(out, len, &bytes);
        Ok(())
    }

    fn proxy_get_buffer_status(lent; buffer: u32, len: *mut usize, flags: *mut u32) {
        put(len, lent.host().buffer(buffer.try_into()?)?.len());
        put(flags, 0);
        Ok(())
    }

    fn proxy_set_buffer_bytes(lent; buffer: u32, start: usize, size: usize, data: *const u8, len: usize) {
        let buffer: BufferType = buffer.try_into()?;
        lent.host().set_buffer(buffer, start, size, Bytes::copy_from_slice(read(data, len)))
    }

    fn proxy_continue_stream(lent; stream: u32) {
        let stream: StreamType = stream.try_into()?;
        lent.host().continue_stream(stream)
    }

    fn proxy_close_stream(lent; stream: u32) {
        let stream: StreamType = stream.try_into()?;
        lent.host().close_stream(stream);
        Ok(())
    }

    fn proxy_send_local_response(
        lent;
        status: u32, details: *const u8, details_len: usize, body: *const u8, body_len: usize,
        fields: *const u8, fields_len: usize, grpc_status: i32
    ) {
        let reply = GuestReply {
            status,
            details: read(details, details_len),
            body: read(body, body_len),
            grpc_status: grpc_status.cast_unsigned(),
        };
        lent.host().send_local_response(reply, list(fields, fields_len));
        Ok(())
    }

    fn proxy_http_call(
        lent;
        upstream: *const u8, upstream_len: usize, fields: *const u8, fields_len: usize, body: *const u8,
        body_len: usize, trailers: *const u8, trailers_len: usize, timeout_ms: u32, token: *mut u32
    ) {
        put(token, 0);
        let callout =
            GuestCallout { upstream: read(upstream, upstream_len), body: read(body, body_len), timeout_ms };
        put(token, lent.host().http_call(callout, list(fields, fields_len), list(trailers, trailers_len))?);
        Ok(())
    }

    fn proxy_grpc_call(
        lent;
        upstream: *const u8, upstream_len: usize, service: *const u8, service_len: usize, method: *const u8,
        method_len: usize, metadata: *const u8, metadata_len: usize, message: *const u8, message_len: usize,
        timeout_ms: u32, token: *mut u32
    ) {
        put(token, 0);
        let call = GuestGrpc {
            upstream: read(upstream, upstream_len),
            service: read(service, service_len),
            method: read(method, method_len),
        };
        let message = read(message, message_len);
        put(token, lent.host().grpc_call(call, list(metadata, metadata_len), message, timeout_ms)?);
        Ok(())
    }

    fn proxy_grpc_stream(
        lent;
        upstream: *const u8, upstream_len: usize, service: *const u8, service_len: usize, method: *const u8,
        method_len: usize, metadata: *const u8, metadata_len: usize, token: *mut u32
    ) {
        put(token, 0);
        let call = GuestGrpc {
            upstream: read(upstream, upstream_len),
            service: read(service, service_len),
            method: read(method, method_len),
        };
        put(token, lent.host().grpc_stream(call, list(metadata, metadata_len))?);
        Ok(())
    }

    fn proxy_grpc_send(lent; token: u32, message: *const u8, message_len: usize, end: bool) {
        lent.host().grpc_send(token, read(message, message_len), End::from_bool(end))
    }

    fn proxy_grpc_cancel(lent; token: u32) {
        lent.host().grpc_cancel(token)
    }

    fn proxy_grpc_close(lent; token: u32) {
        lent.host().grpc_close(token)
    }

    fn proxy_get_shared_data(lent; key: *const u8, key_len: usize, out: Out, len: *mut usize, cas: *mut u32) {
        let (value, version) = lent.services.data(read(key, key_len))?;
        put(cas, version);
        give(out, len, &value);
        Ok(())
    }

    fn proxy_set_shared_data(
        lent; key: *const u8, key_len: usize, value: *const u8, value_len: usize, cas: u32
    ) {
        lent.services.set_data(read(key, key_len), read(value, value_len), cas)
    }

    fn proxy_register_shared_queue(lent; name: *const u8, name_len: usize, out: *mut u32) {
        let root = lent.host().root_ref().ok_or(Status::BadArgument)?;
        put(out, lent.services.register_queue(read(name, name_len), root));
        Ok(())
    }

    fn proxy_resolve_shared_queue(
        lent; _vm: *const u8, _vm_len: usize, name: *const u8, name_len: usize, out: *mut u32
    ) {
        put(out, lent.services.resolve_queue(read(name, name_len))?);
        Ok(())
    }

    fn proxy_enqueue_shared_queue(lent; id: u32, value: *const u8, value_len: usize) {
        lent.services.enqueue(id, read(value, value_len))
    }

    fn proxy_dequeue_shared_queue(lent; id: u32, out: Out, len: *mut usize) {
        give(out, len, &lent.services.dequeue(id)?);
        Ok(())
    }

    fn proxy_define_metric(lent; kind: u32, name: *const u8, name_len: usize, out: *mut u32) {
        let kind: MetricType = kind.try_into()?;
        put(out, lent.services.define(kind, read(name, name_len)));
        Ok(())
    }

    fn proxy_increment_metric(lent; id: u32, delta: i64) {
        lent.services.increment(id, delta)
    }

    fn proxy_record_metric(lent; id: u32, value: u64) {
        lent.services.record(id, value)
    }

    fn proxy_get_metric(lent; id: u32, out: *mut u64) {
        put(out, lent.services.value(id)?);
        Ok(())
    }

    fn proxy_get_property(lent; path: *const u8, path_len: usize, out: Out, len: *mut usize) {
        give(out, len, &lent.host().property(read(path, path_len))?);
        Ok(())
    }

    fn proxy_set_property(lent; path: *const u8, path_len: usize, value: *const u8, value_len: usize) {
        lent.host().set_property(read(path, path_len), read(value, value_len))
    }
}

/// The answers' home, so that whoever makes a gateway links every one of them.
#[used]
static LINKED: extern "C" fn(u32, *const u8, usize) -> u32 = proxy_log;
