//! Guest imports: one row each, in the order of the ABI reference §6. A row decodes its arguments, asks the host, and gives the
//! guest what it said.
//!
//! Arguments are `u32` unless annotated. The word before a row says what it needs:
//!
//! | row | runs with | returns |
//! | --- | --- | --- |
//! | `host fn` | the guest and the [`Host`]; answers `InternalFailure` while the allocator runs | a status |
//! | `free fn` | the guest alone, so it works at any time | a status |
//! | `wasi fn` | the guest alone | a WASI error number |
//! | `word fn` | the guest alone | a number of its own |
//! | `void fn` | the guest alone | nothing |
//!
//! Where we differ from Envoy on purpose, the row says why.

use std::time::SystemTime;

use bytes::Bytes;
use portcullis_abi::{BufferType, MetricType, Status, StreamType, Version};
use portcullis_core::event::End;
use portcullis_core::headers::Headers;
use portcullis_core::host::{GuestCallout, GuestGrpc, GuestReply, Host, Written};
use portcullis_core::time::nanos;
use wasmtime::{Caller, Linker};

use crate::foreign;
use crate::guest::{Call, Guest, Stop};
use crate::queues::Enqueued;
use crate::signature::Signature;

/// One import a module may have.
pub(crate) struct Row {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its type.
    pub(crate) signature: Signature,
    /// What it answers a module that is not granted it; nothing where every module is.
    pub(crate) refusal: Option<u32>,
}

/// What a row's body returns, as the guest gets it.
pub(crate) trait Answer {
    fn number(self) -> wasmtime::Result<u32>;
}

impl Answer for Result<(), Stop> {
    fn number(self) -> wasmtime::Result<u32> {
        match self {
            Ok(()) => Ok(Status::Ok.into()),
            Err(Stop::Status(status)) => Ok(status.into()),
            Err(Stop::Trap(trap)) => Err(trap),
        }
    }
}

/// Runs a row that needs the host.
pub(crate) fn with_host(
    call: &mut Call<'_>,
    row: impl FnOnce(&mut Call<'_>, &mut Host<'_>) -> Result<(), Stop>,
) -> wasmtime::Result<u32> {
    let Some(mut world) = call.take_world() else { return Ok(Status::InternalFailure.into()) };
    let answer = row(call, &mut world.host());
    call.put_world(world);
    answer.number()
}

macro_rules! kind {
    () => {
        u32
    };
    ($ty:ty) => {
        $ty
    };
}

macro_rules! result {
    (void) => {
        ()
    };
    ($flavour:ident) => {
        u32
    };
}

macro_rules! result_kind {
    (void) => {
        None
    };
    ($flavour:ident) => {
        Some($crate::signature::Kind::I32)
    };
}

/// See [`crate::capabilities`].
macro_rules! refusal {
    (host) => {
        Some($crate::capabilities::REFUSED)
    };
    (free) => {
        Some($crate::capabilities::REFUSED)
    };
    (wasi) => {
        Some($crate::capabilities::NOT_CAPABLE)
    };
    ($flavour:ident) => {
        None
    };
}

macro_rules! run {
    (host, $call:expr, ($guest:ident, $host:ident), $body:block) => {
        $crate::hostcalls::with_host(&mut $call, |$guest: &mut Call<'_>, $host: &mut Host<'_>| $body)
    };
    (void, $call:expr, ($guest:ident), $body:block) => {{
        let row = |$guest: &mut Call<'_>| -> wasmtime::Result<()> { $body };
        row(&mut $call)
    }};
    (word, $call:expr, ($guest:ident), $body:block) => {{
        let row = |$guest: &mut Call<'_>| -> u32 { $body };
        Ok(row(&mut $call))
    }};
    (wasi, $call:expr, ($guest:ident), $body:block) => {{
        let row = |$guest: &mut Call<'_>| -> Result<(), Errno> { $body };
        $crate::hostcalls::Answer::number(row(&mut $call))
    }};
    (free, $call:expr, ($guest:ident), $body:block) => {{
        let row = |$guest: &mut Call<'_>| -> Result<(), Stop> { $body };
        $crate::hostcalls::Answer::number(row(&mut $call))
    }};
}

/// Makes of rows the list of imports a module may have, and the function that offers them to it.
macro_rules! hostcalls {
    ($(
        $(#[doc = $doc:literal])*
        $flavour:ident fn $name:ident($($who:ident),+; $($arg:ident $(: $ty:ty)?),*) $body:block
    )*) => {
        /// Every import of these.
        pub(crate) const ROWS: &[$crate::hostcalls::Row] = &[$($crate::hostcalls::Row {
            name: stringify!($name),
            signature: $crate::signature::Signature {
                params: &[$(<$crate::hostcalls::kind!($($ty)?) as $crate::signature::Number>::KIND),*],
                result: $crate::hostcalls::result_kind!($flavour),
            },
            refusal: $crate::hostcalls::refusal!($flavour),
        }),*];

        $(
            $(#[doc = $doc])*
            #[allow(clippy::too_many_arguments, reason = "as many as the ABI says")]
            fn $name(
                caller: Caller<'_, Guest>,
                $($arg: $crate::hostcalls::kind!($($ty)?)),*
            ) -> wasmtime::Result<$crate::hostcalls::result!($flavour)> {
                let _some_rows_use_none = ($($arg,)*);
                let mut call = Call::new(caller, stringify!($name));
                let answer = $crate::hostcalls::run!($flavour, call, ($($who),+), $body);
                if $crate::trace::is_on() {
                    let arguments: &[(&str, i128)] = &[$((stringify!($arg), i128::from($arg))),*];
                    $crate::trace::hostcall(&call, (stringify!($flavour), stringify!($name)), arguments, &answer);
                }
                answer
            }
        )*

        /// Offers them under a module name.
        pub(crate) fn link(linker: &mut Linker<Guest>, module: &str) -> wasmtime::Result<()> {
            $(linker.func_wrap(module, stringify!($name), $name)?;)*
            Ok(())
        }
    };
}

pub(crate) use {hostcalls, kind, refusal, result, result_kind, run};

/// A write that a wire could not carry is left out; the guest hears `Ok`, since SDKs abort on anything else.
fn left_out(guest: &Call<'_>, written: Written) -> Result<(), Stop> {
    match written {
        Written::Done => {}
        Written::LeftOut(why) => guest.note(format_args!("a header was left out: {why}")),
    }
    Ok(())
}

/// A gRPC method, from where its parts are.
fn grpc<'g>(guest: &'g Call<'_>, [upstream, service, method]: [(u32, u32); 3]) -> Result<GuestGrpc<'g>, Status> {
    let read = |(address, len)| guest.read(address, len);
    Ok(GuestGrpc { upstream: read(upstream)?, service: read(service)?, method: read(method)? })
}

hostcalls! {
    /// ABI reference §6.1.
    free fn proxy_log(guest; level, message, len) {
        guest.say(level.try_into()?, guest.read(message, len)?);
        Ok(())
    }

    free fn proxy_get_log_level(guest; out) {
        let level: u32 = guest.log_level().into();
        Ok(guest.put(out, level.to_le_bytes())?)
    }

    free fn proxy_get_current_time_nanoseconds(guest; out) {
        Ok(guest.put(out, wall_clock().to_le_bytes())?)
    }

    host fn proxy_set_tick_period_milliseconds(guest, host; period_ms) {
        host.set_tick(period_ms);
        guest.guest().timers_changed = true;
        Ok(())
    }

    host fn proxy_set_effective_context(_guest, host; id) {
        Ok(host.set_effective_context(id)?)
    }

    host fn proxy_done(_guest, host;) {
        Ok(host.done()?)
    }

    host fn proxy_get_status(guest, host; out_code, out, out_len) {
        let (code, message) = host.contexts.status();
        guest.put(out_code, code.to_le_bytes())?;
        guest.give(out, out_len, message)
    }

    /// ABI reference §10. A known function's answer is written even when it failed, as nothing.
    host fn proxy_call_foreign_function(guest, host; name, name_len, args, args_len, out, out_len) {
        guest.check(name, name_len)?;
        guest.check(args, args_len)?;
        for place in [out, out_len].into_iter().filter(|place| *place != 0) {
            guest.check(place, 4)?;
        }
        let mut expressions = std::mem::take(&mut guest.guest().expressions);
        let space = guest.guest().space.clone();
        let (name, args) = (guest.read(name, name_len)?, guest.read(args, args_len)?);
        let answer = foreign::call(&mut expressions, (host, &space), name, args);
        if answer.is_none() {
            guest.note(format_args!("unknown foreign function `{}`", name.escape_ascii()));
        }
        guest.guest().expressions = expressions;
        let answer = answer.ok_or(Status::NotFound)?;
        guest.give_if_wanted(out, out_len, answer.as_deref().unwrap_or_default())?;
        Ok(answer.map(|_| ())?)
    }

    /// ABI reference §6.2. Envoy answers `BadArgument` for a map that is not there; on that Rust's SDK aborts.
    host fn proxy_get_header_map_value(guest, host; map, name, name_len, out, out_len) {
        match host.header(map.try_into()?, guest.read(name, name_len)?) {
            Ok(value) => guest.give(out, out_len, value),
            // ABI 0.1.0 cannot tell what is absent from what is empty.
            Err(Status::NotFound) if guest.guest().version == Version::V0_1_0 => guest.give(out, out_len, &[]),
            Err(status) => Err(status.into()),
        }
    }

    host fn proxy_get_header_map_pairs(guest, host; map, out, out_len) {
        match host.map(map.try_into()?) {
            Some(headers) => guest.give_pairs(out, out_len, headers),
            None => guest.give(out, out_len, &[]),
        }
    }

    host fn proxy_get_header_map_size(guest, host; map, out) {
        let size = host.map(map.try_into()?).map(Headers::byte_size).ok_or(Status::BadArgument)?;
        let size = u32::try_from(size).map_err(|_| Status::InternalFailure)?;
        Ok(guest.put(out, size.to_le_bytes())?)
    }

    host fn proxy_set_header_map_pairs(guest, host; map, pairs, pairs_len) {
        let left_out = host.set_map(map.try_into()?, guest.pairs(pairs, pairs_len)?)?;
        if left_out > 0 {
            guest.note(format_args!("{left_out} headers were left out: they cannot be written on the wire"));
        }
        Ok(())
    }

    host fn proxy_add_header_map_value(guest, host; map, name, name_len, value, value_len) {
        let (name, value) = (guest.read(name, name_len)?, guest.read(value, value_len)?);
        left_out(guest, host.add_header(map.try_into()?, name, value)?)
    }

    host fn proxy_replace_header_map_value(guest, host; map, name, name_len, value, value_len) {
        let (name, value) = (guest.read(name, name_len)?, guest.read(value, value_len)?);
        left_out(guest, host.replace_header(map.try_into()?, name, value)?)
    }

    host fn proxy_remove_header_map_value(guest, host; map, name, name_len) {
        Ok(host.remove_header(map.try_into()?, guest.read(name, name_len)?)?)
    }

    /// ABI reference §6.3.
    host fn proxy_get_buffer_bytes(guest, host; buffer, start, max, out, out_len) {
        let (start, max) = (start as usize, max as usize);
        let buffer = host.buffer(buffer.try_into()?)?;
        let size = max.min(buffer.len().saturating_sub(start));
        guest.give_with(out, out_len, size, |block| buffer.range(start, max).for_each(|piece| block.push(piece)))
    }

    host fn proxy_get_buffer_status(guest, host; buffer, out_len, out_flags) {
        let len = u32::try_from(host.buffer(buffer.try_into()?)?.len()).unwrap_or(u32::MAX);
        guest.put(out_len, len.to_le_bytes())?;
        Ok(guest.put(out_flags, [0; 4])?)
    }

    host fn proxy_set_buffer_bytes(guest, host; buffer, start, size, data, len) {
        let data = Bytes::copy_from_slice(guest.read(data, len)?);
        Ok(host.set_buffer(buffer.try_into()?, start as usize, size as usize, data)?)
    }

    /// ABI reference §6.4.
    host fn proxy_continue_stream(_guest, host; stream) {
        Ok(host.continue_stream(stream.try_into()?)?)
    }

    host fn proxy_close_stream(_guest, host; stream) {
        host.close_stream(stream.try_into()?);
        Ok(())
    }

    /// ABI 0.1.0.
    host fn proxy_continue_request(_guest, host;) {
        Ok(host.continue_stream(StreamType::HttpRequest)?)
    }

    /// ABI 0.1.0.
    host fn proxy_continue_response(_guest, host;) {
        Ok(host.continue_stream(StreamType::HttpResponse)?)
    }

    /// ABI 0.1.0.
    host fn proxy_clear_route_cache(_guest, host;) {
        host.clear_route_cache();
        Ok(())
    }

    host fn proxy_send_local_response(
        guest, host;
        status, details, details_len, body, body_len, fields, fields_len, grpc_status
    ) {
        let (details, body) = (guest.read(details, details_len)?, guest.read(body, body_len)?);
        let fields = guest.pairs(fields, fields_len)?;
        host.send_local_response(GuestReply { status, details, body, grpc_status }, fields);
        Ok(())
    }

    /// ABI reference §6.5 and §9.2: a failure leaves 0 where the token goes.
    host fn proxy_http_call(
        guest, host;
        upstream, upstream_len, fields, fields_len, body, body_len, trailers, trailers_len, timeout_ms, out_token
    ) {
        guest.put(out_token, [0; 4])?;
        let (upstream, body) = (guest.read(upstream, upstream_len)?, guest.read(body, body_len)?);
        let (fields, trailers) = (guest.pairs(fields, fields_len)?, guest.pairs(trailers, trailers_len)?);
        let token = host.http_call(GuestCallout { upstream, body, timeout_ms }, fields, trailers)?;
        Ok(guest.put(out_token, token.to_le_bytes())?)
    }

    /// ABI reference §9.3.
    host fn proxy_grpc_call(
        guest, host;
        upstream, upstream_len, service, service_len, method, method_len, metadata, metadata_len,
        message, message_len, timeout_ms, out_token
    ) {
        let call = grpc(guest, [(upstream, upstream_len), (service, service_len), (method, method_len)])?;
        let (metadata, message) = (guest.pairs(metadata, metadata_len)?, guest.read(message, message_len)?);
        guest.check(out_token, 4)?;
        let token = host.grpc_call(call, metadata, message, timeout_ms)?;
        Ok(guest.put(out_token, token.to_le_bytes())?)
    }

    host fn proxy_grpc_stream(
        guest, host;
        upstream, upstream_len, service, service_len, method, method_len, metadata, metadata_len, out_token
    ) {
        let call = grpc(guest, [(upstream, upstream_len), (service, service_len), (method, method_len)])?;
        let metadata = guest.pairs(metadata, metadata_len)?;
        guest.check(out_token, 4)?;
        let token = host.grpc_stream(call, metadata)?;
        Ok(guest.put(out_token, token.to_le_bytes())?)
    }

    host fn proxy_grpc_send(guest, host; token, message, message_len, end_stream) {
        Ok(host.grpc_send(token, guest.read(message, message_len)?, End::from_bool(end_stream != 0))?)
    }

    host fn proxy_grpc_cancel(_guest, host; token) {
        Ok(host.grpc_cancel(token)?)
    }

    host fn proxy_grpc_close(_guest, host; token) {
        Ok(host.grpc_close(token)?)
    }

    /// ABI reference §6.6.
    free fn proxy_get_shared_data(guest; key, key_len, out, out_len, out_cas) {
        let space = guest.guest().space.clone();
        let (value, cas) = space.get(guest.read(key, key_len)?)?;
        guest.put(out_cas, cas.to_le_bytes())?;
        guest.give(out, out_len, &value)
    }

    free fn proxy_set_shared_data(guest; key, key_len, value, value_len, cas) {
        let space = guest.guest().space.clone();
        Ok(space.set(guest.read(key, key_len)?, guest.read(value, value_len)?, cas)?)
    }

    /// SDKs abort on anything but `Ok`: where there are too many, the answer is an id that no queue has.
    host fn proxy_register_shared_queue(guest, host; name, name_len, out_id) {
        let (space, post) = (guest.guest().space.clone(), guest.guest().post.clone());
        let root = host.root_ref().ok_or(Status::InternalFailure)?;
        guest.put(out_id, [0; 4])?;
        let role = guest.guest().role;
        let id = space.register_queue(role, guest.read(name, name_len)?, root, &post);
        guest.guest().consumes |= id != 0;
        if id == 0 {
            guest.note(format_args!("there are too many queues, or the name is too long: this one can hold nothing"));
        }
        Ok(guest.put(out_id, id.to_le_bytes())?)
    }

    /// On Envoy the VM id alone says whose queue is meant. Here it does among those of one tenant.
    free fn proxy_resolve_shared_queue(guest; vm_id, vm_id_len, name, name_len, out_id) {
        let space = guest.guest().space.clone();
        let id = space.resolve_queue(guest.read(vm_id, vm_id_len)?, guest.read(name, name_len)?)?;
        Ok(guest.put(out_id, id.to_le_bytes())?)
    }

    free fn proxy_enqueue_shared_queue(guest; id, value, value_len) {
        let queues = guest.guest().space.queues().clone();
        if queues.enqueue(id, guest.read(value, value_len)?)? == Enqueued::Dropped {
            guest.guest().voice.cells().queue_items_dropped.add(1);
            guest.note(format_args!("the queue is full, and the item was dropped"));
        }
        Ok(())
    }

    free fn proxy_dequeue_shared_queue(guest; id, out, out_len) {
        let queues = guest.guest().space.queues().clone();
        // Before it is taken: an item whose address cannot be told would be lost.
        guest.put(out, [0; 4])?;
        guest.put(out_len, [0; 4])?;
        let item = queues.dequeue(id)?;
        guest.give(out, out_len, &item)
    }

    free fn proxy_define_metric(guest; kind, name, name_len, out_id) {
        let kind: MetricType = kind.try_into()?;
        let name = guest.read(name, name_len)?.to_vec();
        let id = guest.guest().metrics.define(kind, &name);
        Ok(guest.put(out_id, id.to_le_bytes())?)
    }

    free fn proxy_increment_metric(guest; id, delta: i64) {
        Ok(guest.guest().metrics.increment(id, delta)?)
    }

    free fn proxy_record_metric(guest; id, value: i64) {
        Ok(guest.guest().metrics.record(id, value)?)
    }

    free fn proxy_get_metric(guest; id, out) {
        let value = guest.guest().metrics.get(id)?;
        Ok(guest.put(out, value.to_le_bytes())?)
    }

    /// ABI reference §6.7.
    host fn proxy_get_property(guest, host; path, path_len, out, out_len) {
        let value = host.property(guest.read(path, path_len)?)?;
        guest.give(out, out_len, &value)
    }

    host fn proxy_set_property(guest, host; path, path_len, value, value_len) {
        Ok(host.set_property(guest.read(path, path_len)?, guest.read(value, value_len)?)?)
    }

    /// ABI 0.1.0: a root's configuration while it reads it, the VM's otherwise. Later versions have buffers 6 and 7.
    host fn proxy_get_configuration(guest, host; out, out_len) {
        let buffer =
            if guest.guest().configuring { BufferType::PluginConfiguration } else { BufferType::VmConfiguration };
        let configuration = host.buffer(buffer)?;
        let size = configuration.len();
        guest.give_with(out, out_len, size, |block| configuration.range(0, size).for_each(|piece| block.push(piece)))
    }

    /// ABI reference §2.3: Emscripten's output imports these two.
    word fn pthread_equal(_guest; one, other) {
        u32::from(one == other)
    }

    void fn emscripten_notify_memory_growth(_guest; memory) {
        Ok(())
    }
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    nanos(since)
}
