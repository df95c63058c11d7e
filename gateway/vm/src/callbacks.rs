//! Guest exports, typed: every function the gateway calls, with its type, once.
//!
//! A module is checked against the table when it is loaded, and an instance's functions are looked up by it once, when it
//! starts. What a module does not export is never called.

use portcullis_core::event::{Direction, End};
use portcullis_core::filter::{Callback, Export, Exports};
use wasmtime::{AsContextMut, Extern, Func, Instance, StoreContextMut, TypedFunc};

use crate::capabilities::Capabilities;
use crate::guest::Guest;
use crate::signature::{Params, Returned, Signature};

macro_rules! callbacks {
    ($($(#[$doc:meta])* $name:ident: $params:ty => $returned:ty, $($export:literal)|+;)*) => {
        /// An instance's functions; one that the module does not export is absent.
        pub(crate) struct Callbacks {
            $($(#[$doc])* pub(crate) $name: Option<TypedFunc<$params, $returned>>,)*
            request_headers: Option<OnHeaders>,
            response_headers: Option<OnHeaders>,
        }

        impl Callbacks {
            /// Looks up those that it may be called by.
            pub(crate) fn of(
                instance: &Instance,
                mut store: StoreContextMut<'_, Guest>,
                granted: &Capabilities,
            ) -> Self {
                let mut granted = |name| {
                    let export = granted.allow_callback(name).then(|| instance.get_export(&mut store, name));
                    export.flatten().and_then(Extern::into_func)
                };
                let (request_headers, response_headers) = (granted(REQUEST_HEADERS), granted(RESPONSE_HEADERS));
                $(let $name = [$($export),+].into_iter().find_map(&mut granted);)*
                Self {
                    $($name: $name.and_then(|function| function.typed(&store).ok()),)*
                    request_headers: request_headers.and_then(|function| OnHeaders::of(function, &store)),
                    response_headers: response_headers.and_then(|function| OnHeaders::of(function, &store)),
                }
            }
        }

        const ROWS: &[(&str, Signature)] = &[$($(
            ($export, Signature { params: <$params as Params>::KINDS, result: <$returned as Returned>::KIND })
        ),+),*];
    };
}

callbacks! {
    /// The ABI's own name goes first, as its text says; AssemblyScript and C++ export only the other.
    allocate: (u32,) => u32, "proxy_on_memory_allocate" | "malloc";
    initialize: () => (), "_initialize";
    start: () => (), "_start";
    main: (u32, u32) => u32, "main";
    main_void: () => u32, "__main_void";
    context_create: (u32, u32) => (), "proxy_on_context_create";
    vm_start: (u32, u32) => u32, "proxy_on_vm_start";
    configure: (u32, u32) => u32, "proxy_on_configure";
    tick: (u32,) => (), "proxy_on_tick";
    queue_ready: (u32, u32) => (), "proxy_on_queue_ready";
    grpc_initial_metadata: (u32, u32, u32) => (), "proxy_on_grpc_receive_initial_metadata";
    grpc_receive: (u32, u32, u32) => (), "proxy_on_grpc_receive";
    grpc_trailing_metadata: (u32, u32, u32) => (), "proxy_on_grpc_receive_trailing_metadata";
    grpc_close: (u32, u32, u32) => (), "proxy_on_grpc_close";
    http_call_response: (u32, u32, u32, u32, u32) => (), "proxy_on_http_call_response";
    request_body: (u32, u32, u32) => u32, "proxy_on_request_body";
    request_trailers: (u32, u32) => u32, "proxy_on_request_trailers";
    response_body: (u32, u32, u32) => u32, "proxy_on_response_body";
    response_trailers: (u32, u32) => u32, "proxy_on_response_trailers";
    new_connection: (u32,) => u32, "proxy_on_new_connection";
    downstream_data: (u32, u32, u32) => u32, "proxy_on_downstream_data";
    upstream_data: (u32, u32, u32) => u32, "proxy_on_upstream_data";
    downstream_close: (u32, u32) => (), "proxy_on_downstream_connection_close";
    upstream_close: (u32, u32) => (), "proxy_on_upstream_connection_close";
    log: (u32,) => (), "proxy_on_log";
    done: (u32,) => u32, "proxy_on_done";
    delete: (u32,) => (), "proxy_on_delete";
}

/// A headers callback: ABI 0.1.0 has no third parameter, and what a module exports need not match its marker.
enum OnHeaders {
    Two(TypedFunc<(u32, u32), u32>),
    Three(TypedFunc<(u32, u32, u32), u32>),
}

const REQUEST_HEADERS: &str = Export::RequestHeaders.name();
const RESPONSE_HEADERS: &str = Export::ResponseHeaders.name();
const TWO: Signature = Signature { params: <(u32, u32) as Params>::KINDS, result: <u32 as Returned>::KIND };
const THREE: Signature = Signature { params: <(u32, u32, u32) as Params>::KINDS, result: <u32 as Returned>::KIND };

impl OnHeaders {
    fn of(function: Func, store: &StoreContextMut<'_, Guest>) -> Option<Self> {
        match function.typed(store) {
            Ok(three) => Some(Self::Three(three)),
            Err(_) => function.typed(store).ok().map(Self::Two),
        }
    }

    fn call(
        &self,
        store: impl AsContextMut<Data = Guest>,
        context: u32,
        count: u32,
        end: u32,
    ) -> wasmtime::Result<u32> {
        match self {
            Self::Two(function) => function.call(store, (context, count)),
            Self::Three(function) => function.call(store, (context, count, end)),
        }
    }
}

/// Which function is called.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Called {
    /// One of those that are called once, as the VM starts, by its name.
    Start(&'static str),
    ContextCreate,
    About(Export),
    HttpCallResponse,
    /// One of those about a gRPC call or stream, by its name.
    Grpc(&'static str),
    QueueReady,
    Tick,
}

impl Called {
    /// How many kinds there are of them.
    pub(crate) const KINDS: usize = Export::ALL.len() + 6;

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Start(name) | Self::Grpc(name) => name,
            Self::ContextCreate => "proxy_on_context_create",
            Self::About(export) => export.name(),
            Self::HttpCallResponse => "proxy_on_http_call_response",
            Self::QueueReady => "proxy_on_queue_ready",
            Self::Tick => "proxy_on_tick",
        }
    }

    /// The number of its kind: those of one kind do the same work.
    pub(crate) const fn kind(self) -> usize {
        match self {
            Self::Start(_) => 0,
            Self::ContextCreate => 1,
            Self::HttpCallResponse => 2,
            Self::Grpc(_) => 3,
            Self::QueueReady => 4,
            Self::Tick => 5,
            Self::About(export) => 6 + (export as u16).trailing_zeros() as usize,
        }
    }
}

impl Callbacks {
    /// Makes a callback about an exchange; one the module does not export answers 0.
    pub(crate) fn call(
        &self,
        store: impl AsContextMut<Data = Guest>,
        context: u32,
        callback: Callback,
    ) -> wasmtime::Result<u32> {
        use Direction::{Request, Response};
        match callback {
            Callback::Headers(Request, count, end) => {
                headers(self.request_headers.as_ref(), store, context, count, end)
            }
            Callback::Headers(Response, count, end) => {
                headers(self.response_headers.as_ref(), store, context, count, end)
            }
            Callback::Body(Request, size, end) => answer(self.request_body.as_ref(), store, (context, size, word(end))),
            Callback::Body(Response, size, end) => {
                answer(self.response_body.as_ref(), store, (context, size, word(end)))
            }
            Callback::Trailers(Request, count) => answer(self.request_trailers.as_ref(), store, (context, count)),
            Callback::Trailers(Response, count) => answer(self.response_trailers.as_ref(), store, (context, count)),
            Callback::NewConnection => answer(self.new_connection.as_ref(), store, (context,)),
            Callback::Data(Request, size, end) => {
                answer(self.downstream_data.as_ref(), store, (context, size, word(end)))
            }
            Callback::Data(Response, size, end) => {
                answer(self.upstream_data.as_ref(), store, (context, size, word(end)))
            }
            Callback::Closed(direction, peer) => {
                let function = match direction {
                    Request => &self.downstream_close,
                    Response => &self.upstream_close,
                };
                answer(function.as_ref(), store, (context, peer as u32)).map(|()| 0)
            }
            Callback::Log => answer(self.log.as_ref(), store, (context,)).map(|()| 0),
            Callback::Done => answer(self.done.as_ref(), store, (context,)),
            Callback::Delete => answer(self.delete.as_ref(), store, (context,)).map(|()| 0),
        }
    }
}

fn headers(
    function: Option<&OnHeaders>,
    store: impl AsContextMut<Data = Guest>,
    context: u32,
    count: u32,
    end: End,
) -> wasmtime::Result<u32> {
    function.map_or(Ok(0), |function| function.call(store, context, count, word(end)))
}

/// What a function answers; 0 or nothing when there is none.
pub(crate) fn answer<P, R>(
    function: Option<&TypedFunc<P, R>>,
    store: impl AsContextMut<Data = Guest>,
    arguments: P,
) -> wasmtime::Result<R>
where
    P: wasmtime::WasmParams,
    R: wasmtime::WasmResults + Default,
{
    function.map_or_else(|| Ok(R::default()), |function| function.call(store, arguments))
}

fn word(end: End) -> u32 {
    u32::from(end.is_end())
}

/// Those of the chain's callbacks that a module exports and is granted.
pub(crate) fn exports(module: &wasmtime::Module, granted: &Capabilities) -> Exports {
    let is_exported = |name: &str| granted.allow_callback(name) && module.get_export(name).is_some();
    let exported = Export::ALL.into_iter().filter(|export| is_exported(export.name()));
    exported.fold(Exports::default(), Exports::with)
}

/// The names of all exports that may be called.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|(name, _)| *name).chain([REQUEST_HEADERS, RESPONSE_HEADERS])
}

/// The types an export of this name may have, if the gateway would call it.
pub(crate) fn signatures(name: &str) -> impl Iterator<Item = Signature> {
    let headers = name == REQUEST_HEADERS || name == RESPONSE_HEADERS;
    let plain = ROWS.iter().filter(move |(row, _)| *row == name).map(|(_, signature)| *signature);
    plain.chain([THREE, TWO].into_iter().filter(move |_| headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_a_kind_and_they_are_as_many_as_counted() {
        let others = [Called::ContextCreate, Called::HttpCallResponse, Called::QueueReady, Called::Tick];
        let named = [Called::Start("_start"), Called::Grpc("proxy_on_grpc_close")];
        let about = Export::ALL.map(Called::About);
        let mut kinds: Vec<_> = others.into_iter().chain(named).chain(about).map(Called::kind).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, (0..Called::KINDS).collect::<Vec<_>>());
        assert!(others.into_iter().chain(about).all(|called| signatures(called.name()).next().is_some()));
    }
}
