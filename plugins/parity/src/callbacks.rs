//! Every callback of ABI 0.2.1 for HTTP.
#![allow(unsafe_code, reason = "the ABI finds callbacks by name")]

use crate::hostcalls;
use crate::script::Part;
use crate::state;
use crate::steps::take;

#[cfg(target_os = "wasi")]
unsafe extern "C" {
    fn __wasm_call_ctors();
}

/// Where it is not called, the linker wraps every export in it.
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    #[cfg(target_os = "wasi")]
    // SAFETY: the host calls this once, before anything else.
    unsafe {
        __wasm_call_ctors();
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    if state::is_barren() { std::ptr::null_mut() } else { hostcalls::allocate(size) }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(id: u32, parent: u32) {
    state::create(id, parent);
    take(id, "context_create", &[], Part::More);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(id: u32, size: u32) -> u32 {
    state::configure(id, &configuration(size));
    u32::from(take(id, "configure", &[], Part::More) == 0)
}

/// Buffer 7, as it comes.
fn configuration(size: u32) -> String {
    let cell = Box::new([0_u8; 8]);
    let (address, _) = hostcalls::place(&cell[..]);
    if let Some(get) = hostcalls::named("get_buffer_bytes") {
        (get.call)(&[7, 0, i64::from(size), address, address + 4]);
    }
    String::from_utf8_lossy(&hostcalls::answer(&cell)).into_owned()
}

macro_rules! callbacks {
    ($($export:ident, $name:literal, ($($arg:ident),*) $(, end = $end:ident)? $(=> $result:ty)?;)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $export(id: u32 $(, $arg: u32)*) $(-> $result)? {
                let part = Part::More;
                $(let part = if $end != 0 { Part::End } else { part };)?
                let returned = take(id, $name, &[$($arg),*], part);
                callbacks!(@return returned $($result)?)
            }
        )*
    };
    (@return $returned:ident) => { _ = $returned };
    (@return $returned:ident $result:ty) => { $returned };
}

callbacks! {
    proxy_on_tick, "tick", ();
    proxy_on_queue_ready, "queue_ready", (queue);
    proxy_on_request_headers, "request_headers", (count, end), end = end => u32;
    proxy_on_request_body, "request_body", (size, end), end = end => u32;
    proxy_on_request_trailers, "request_trailers", (count) => u32;
    proxy_on_response_headers, "response_headers", (count, end), end = end => u32;
    proxy_on_response_body, "response_body", (size, end), end = end => u32;
    proxy_on_response_trailers, "response_trailers", (count) => u32;
    proxy_on_http_call_response, "http_call_response", (token, headers, size, trailers);
    proxy_on_grpc_receive_initial_metadata, "grpc_receive_initial_metadata", (token, count);
    proxy_on_grpc_receive, "grpc_receive", (token, size);
    proxy_on_grpc_receive_trailing_metadata, "grpc_receive_trailing_metadata", (token, count);
    proxy_on_grpc_close, "grpc_close", (token, status);
    proxy_on_log, "log", ();
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_: u32, _: u32) -> u32 {
    1
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_done(id: u32) -> u32 {
    u32::from(take(id, "done", &[], Part::More) == 0)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(id: u32) {
    take(id, "delete", &[], Part::More);
    if let Some(label) = state::delete(id) {
        hostcalls::log(&format!("{label}|gone"));
    }
}
