//! Every hostcall of ABI 0.2.1, callable by name with whatever arguments.
#![allow(unsafe_code, reason = "the ABI is raw: numbers, some of which are addresses, and wrong ones on purpose")]

/// What an argument of a hostcall is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A number.
    Number,
    /// An address and a length of bytes that the host reads.
    Bytes,
    /// The same, for the segments of a property's path.
    Path,
    /// Two addresses where the host puts the address and the length of its answer.
    Answer,
    /// An address where the host puts 4 bytes.
    Word,
    /// An address where the host puts 8 bytes.
    Long,
}

/// A hostcall: its arguments, and how to call it with as many words as they take.
pub(crate) struct Hostcall {
    pub(crate) name: &'static str,
    pub(crate) kinds: &'static [Kind],
    pub(crate) call: fn(&[i64]) -> u32,
}

macro_rules! hostcalls {
    ($($name:ident($($arg:ident: $ty:ty),*) [$($kind:ident)*];)*) => {
        mod raw {
            #[link(wasm_import_module = "env")]
            unsafe extern "C" {
                $(pub(super) fn $name($($arg: $ty),*) -> u32;)*
            }
        }

        /// All of them.
        const ALL: &[Hostcall] = &[$(Hostcall {
            name: stringify!($name),
            kinds: &[$(Kind::$kind),*],
            call: |words| {
                let mut words = words.iter().copied();
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "wasm knows no sign")]
                let ($($arg,)*) = ($({ let $arg = words.next().unwrap_or_default() as $ty; $arg },)*);
                _ = words.next();
                // SAFETY: the host checks every address. Where a good one is handed over, it is of memory that outlives the call.
                unsafe { raw::$name($($arg),*) }
            },
        }),*];
    };
}

hostcalls! {
    proxy_log(a: u32, b: u32, c: u32) [Number Bytes];
    proxy_get_log_level(a: u32) [Word];
    proxy_get_current_time_nanoseconds(a: u32) [Long];
    proxy_set_tick_period_milliseconds(a: u32) [Number];
    proxy_set_effective_context(a: u32) [Number];
    proxy_done() [];
    proxy_get_status(a: u32, b: u32, c: u32) [Word Answer];
    proxy_call_foreign_function(a: u32, b: u32, c: u32, d: u32, e: u32, f: u32) [Bytes Bytes Answer];
    proxy_get_header_map_value(a: u32, b: u32, c: u32, d: u32, e: u32) [Number Bytes Answer];
    proxy_get_header_map_pairs(a: u32, b: u32, c: u32) [Number Answer];
    proxy_get_header_map_size(a: u32, b: u32) [Number Word];
    proxy_set_header_map_pairs(a: u32, b: u32, c: u32) [Number Bytes];
    proxy_add_header_map_value(a: u32, b: u32, c: u32, d: u32, e: u32) [Number Bytes Bytes];
    proxy_replace_header_map_value(a: u32, b: u32, c: u32, d: u32, e: u32) [Number Bytes Bytes];
    proxy_remove_header_map_value(a: u32, b: u32, c: u32) [Number Bytes];
    proxy_get_buffer_bytes(a: u32, b: u32, c: u32, d: u32, e: u32) [Number Number Number Answer];
    proxy_get_buffer_status(a: u32, b: u32, c: u32) [Number Word Word];
    proxy_set_buffer_bytes(a: u32, b: u32, c: u32, d: u32, e: u32) [Number Number Number Bytes];
    proxy_continue_stream(a: u32) [Number];
    proxy_close_stream(a: u32) [Number];
    proxy_send_local_response(a: u32, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32, h: u32)
        [Number Bytes Bytes Bytes Number];
    proxy_http_call(a: u32, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32, h: u32, i: u32, j: u32)
        [Bytes Bytes Bytes Bytes Number Word];
    proxy_grpc_call(
        a: u32, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32, h: u32, i: u32, j: u32, k: u32, l: u32
    ) [Bytes Bytes Bytes Bytes Bytes Number Word];
    proxy_grpc_stream(a: u32, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32, h: u32, i: u32)
        [Bytes Bytes Bytes Bytes Word];
    proxy_grpc_send(a: u32, b: u32, c: u32, d: u32) [Number Bytes Number];
    proxy_grpc_cancel(a: u32) [Number];
    proxy_grpc_close(a: u32) [Number];
    proxy_get_shared_data(a: u32, b: u32, c: u32, d: u32, e: u32) [Bytes Answer Word];
    proxy_set_shared_data(a: u32, b: u32, c: u32, d: u32, e: u32) [Bytes Bytes Number];
    proxy_register_shared_queue(a: u32, b: u32, c: u32) [Bytes Word];
    proxy_resolve_shared_queue(a: u32, b: u32, c: u32, d: u32, e: u32) [Bytes Bytes Word];
    proxy_enqueue_shared_queue(a: u32, b: u32, c: u32) [Number Bytes];
    proxy_dequeue_shared_queue(a: u32, b: u32, c: u32) [Number Answer];
    proxy_define_metric(a: u32, b: u32, c: u32, d: u32) [Number Bytes Word];
    proxy_increment_metric(a: u32, b: i64) [Number Number];
    proxy_record_metric(a: u32, b: i64) [Number Number];
    proxy_get_metric(a: u32, b: u32) [Number Long];
    proxy_get_property(a: u32, b: u32, c: u32, d: u32) [Path Answer];
    proxy_set_property(a: u32, b: u32, c: u32, d: u32) [Path Bytes];
}

/// The hostcall with this name, which may be without its `proxy_`.
pub(crate) fn named(name: &str) -> Option<&'static Hostcall> {
    ALL.iter().find(|hostcall| hostcall.name.strip_prefix("proxy_") == Some(name))
}

/// Where bytes are, for the host.
pub(crate) fn place(bytes: &[u8]) -> (i64, i64) {
    (
        i64::try_from(bytes.as_ptr().expose_provenance()).unwrap_or_default(),
        i64::try_from(bytes.len()).unwrap_or_default(),
    )
}

/// The bytes whose address and length the host has put into a cell. They are the guest's now.
pub(crate) fn answer(cell: &[u8; 8]) -> Vec<u8> {
    // The host has written there, which the compiler cannot know.
    let [a, b, c, d, e, f, g, h] = *std::hint::black_box(cell);
    let (address, len) = (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]) as usize);
    if address == 0 || len == 0 {
        return Vec::new();
    }
    // SAFETY: an address that is not 0 came from `allocate`, with this length, and is taken once.
    unsafe { Vec::from_raw_parts(std::ptr::with_exposed_provenance_mut(address), len, len) }
}

/// Memory for the host to put an answer into.
pub(crate) fn allocate(size: usize) -> *mut u8 {
    let mut block = std::mem::ManuallyDrop::new(vec![0_u8; size]);
    _ = block.as_ptr().expose_provenance();
    block.as_mut_ptr()
}

/// Logs a line.
pub(crate) fn log(line: &str) {
    const INFO: u32 = 2;
    let (address, len) = (line.as_ptr().expose_provenance(), line.len());
    // SAFETY: the host reads the line while it is borrowed here.
    unsafe { raw::proxy_log(INFO, u32::try_from(address).unwrap_or(0), u32::try_from(len).unwrap_or(0)) };
}
