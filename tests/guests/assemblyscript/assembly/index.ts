// Asks an upstream about a token, turns request bodies round, makes response bodies upper case, and counts its ticks where all
// of its VMs can see them. What the SDK has wrong or does not have (shared data, changing a body) is called as the ABI says.
export * from "@solo-io/proxy-runtime/proxy";
import {
  BufferTypeValues, Context, FilterDataStatusValues, FilterHeadersStatusValues, GrpcStatusValues, HeaderPair,
  LogLevelValues, RootContext, WasmResultValues, continue_request, get_buffer_bytes, log, registerRootContext,
  send_local_response, set_tick_period_milliseconds, stream_context,
} from "@solo-io/proxy-runtime/runtime";
import { proxy_get_shared_data, proxy_set_shared_data } from "@solo-io/proxy-runtime/imports";
import { free } from "@solo-io/proxy-runtime/malloc";

// @ts-ignore: decorator
@external("env", "proxy_set_buffer_bytes")
declare function proxy_set_buffer_bytes(kind: i32, start: u32, size: u32, data: usize, length: usize): u32;

class Out {
  address: usize;
  size: usize;
  cas: u32;
}

const out = new Out();

function shared(key: string): string {
  const name = String.UTF8.encode(key);
  const at = changetype<usize>(out);
  const found = proxy_get_shared_data(changetype<usize>(name), name.byteLength, at + offsetof<Out>("address"),
    at + offsetof<Out>("size"), at + offsetof<Out>("cas"));
  if (found != WasmResultValues.Ok) {
    out.cas = 0;
    return "";
  }
  const value = String.UTF8.decodeUnsafe(out.address, out.size);
  free(out.address);
  return value;
}

function share(key: string, value: string, cas: u32): void {
  const name = String.UTF8.encode(key);
  const bytes = String.UTF8.encode(value);
  proxy_set_shared_data(changetype<usize>(name), name.byteLength, changetype<usize>(bytes), bytes.byteLength, cas);
}

function setBody(kind: BufferTypeValues, size: usize, body: ArrayBuffer): void {
  proxy_set_buffer_bytes(kind, 0, size as u32, changetype<usize>(body), body.byteLength);
}

function pair(name: string, value: string): HeaderPair {
  return new HeaderPair(String.UTF8.encode(name), String.UTF8.encode(value));
}

class Root extends RootContext {
  onConfigure(size: u32): bool {
    super.onConfigure(size);
    set_tick_period_milliseconds(5);
    return true;
  }

  onTick(): void {
    const ticks = shared("ticks");
    const next = ticks == "" ? 1 : I32.parseInt(ticks) + 1;
    // Another VM may have been quicker; there will be other ticks.
    share("ticks", next.toString(), out.cas);
  }

  createContext(id: u32): Context {
    return new Guest(id, this);
  }
}

class Guest extends Context {
  onRequestHeaders(count: u32, end: bool): FilterHeadersStatusValues {
    const headers = stream_context.headers.request;
    const token = headers.get("x-token");
    headers.replace("x-greeting", this.root_context.getConfiguration());
    headers.remove("content-length");
    const fields = [
      pair(":method", "GET"), pair(":path", "/authorize"), pair(":authority", "authorizer"), pair("x-token", token),
    ];
    const called = this.root_context.httpCall("origin", fields, new ArrayBuffer(0), [], 5000, this, onAnswer);
    return called == WasmResultValues.Ok
      ? FilterHeadersStatusValues.StopIteration
      : FilterHeadersStatusValues.Continue;
  }

  onRequestBody(size: usize, end: bool): FilterDataStatusValues {
    if (!end) {
      return FilterDataStatusValues.StopIterationAndBuffer;
    }
    const body = get_buffer_bytes(BufferTypeValues.HttpRequestBody, 0, size as u32);
    Uint8Array.wrap(body).reverse();
    setBody(BufferTypeValues.HttpRequestBody, size, body);
    return FilterDataStatusValues.Continue;
  }

  onResponseHeaders(count: u32, end: bool): FilterHeadersStatusValues {
    const headers = stream_context.headers.response;
    headers.remove("content-length");
    headers.replace("x-ticks", shared("ticks"));
    return FilterHeadersStatusValues.Continue;
  }

  onResponseBody(size: usize, end: bool): FilterDataStatusValues {
    if (!end) {
      return FilterDataStatusValues.StopIterationAndBuffer;
    }
    const body = String.UTF8.decode(get_buffer_bytes(BufferTypeValues.HttpResponseBody, 0, size as u32));
    setBody(BufferTypeValues.HttpResponseBody, size, String.UTF8.encode(body.toUpperCase()));
    return FilterDataStatusValues.Continue;
  }

  onLog(): void {
    log(LogLevelValues.info, "served " + stream_context.headers.request.get(":path"));
  }
}

function onAnswer(context: Context, headers: u32, size: usize, trailers: u32): void {
  if (stream_context.headers.http_callback.get(":status") != "200") {
    send_local_response(403, "", String.UTF8.encode("refused"), [], GrpcStatusValues.InvalidCode);
    return;
  }
  const said = get_buffer_bytes(BufferTypeValues.HttpCallResponseBody, 0, size as u32);
  stream_context.headers.request.replace("x-authorized", String.UTF8.decode(said));
  continue_request();
}

// The SDK finds the factory by `plugin_root_id`, which is the plugin's name in the gateway's configuration.
registerRootContext((id: u32) => new Root(id), "guest");
