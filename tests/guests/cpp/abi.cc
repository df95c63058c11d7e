// The exports of a C++ SDK. The host finds memory by `malloc`, which wasi-libc has: there is no proxy_on_memory_allocate.
#include "abi.h"

#include <cstdlib>
#include <memory>
#include <unordered_map>

#define EXPORT(name) extern "C" __attribute__((export_name(#name)))

static std::unordered_map<uint32_t, std::unique_ptr<Context>> contexts;
static std::unordered_map<uint32_t, uint32_t> calls;

/// Takes over a value that the host has put into a block it had from `malloc`.
static std::string taken(char *data, size_t size) {
  std::string value(data, size);
  free(data);
  return value;
}

void log(Level level, std::string_view text) { proxy_log(uint32_t(level), text.data(), text.size()); }

std::string buffer(Buffer kind, size_t start, size_t max) {
  char *data = nullptr;
  size_t size = 0;
  return proxy_get_buffer_bytes(uint32_t(kind), start, max, &data, &size) ? std::string() : taken(data, size);
}

void setBuffer(Buffer kind, size_t start, size_t size, std::string_view data) {
  proxy_set_buffer_bytes(uint32_t(kind), start, size, data.data(), data.size());
}

std::string header(Map map, std::string_view name) {
  char *data = nullptr;
  size_t size = 0;
  bool absent = proxy_get_header_map_value(uint32_t(map), name.data(), name.size(), &data, &size);
  return absent ? std::string() : taken(data, size);
}

void setHeader(Map map, std::string_view name, std::string_view value) {
  proxy_replace_header_map_value(uint32_t(map), name.data(), name.size(), value.data(), value.size());
}

void removeHeader(Map map, std::string_view name) { proxy_remove_header_map_value(uint32_t(map), name.data(), name.size()); }

void reply(uint32_t status, std::string_view body) {
  proxy_send_local_response(status, nullptr, 0, body.data(), body.size(), nullptr, 0, UINT32_MAX);
}

std::string sharedData(std::string_view key, uint32_t *cas) {
  char *data = nullptr;
  size_t size = 0;
  return proxy_get_shared_data(key.data(), key.size(), &data, &size, cas) ? std::string() : taken(data, size);
}

bool setSharedData(std::string_view key, std::string_view value, uint32_t cas) {
  return proxy_set_shared_data(key.data(), key.size(), value.data(), value.size(), cas) == 0;
}

static void append(std::string &to, uint32_t number) { to.append(reinterpret_cast<char *>(&number), sizeof number); }

static std::string pairs(const Fields &fields) {
  std::string out;
  append(out, fields.size());
  for (const auto &[name, value] : fields) {
    append(out, name.size());
    append(out, value.size());
  }
  for (const auto &[name, value] : fields) {
    out.append(name).push_back('\0');
    out.append(value).push_back('\0');
  }
  return out;
}

bool Context::httpCall(std::string_view upstream, const Fields &fields, uint32_t timeout) {
  std::string headers = pairs(fields);
  uint32_t token = 0;
  uint32_t failed = proxy_http_call(upstream.data(), upstream.size(), headers.data(), headers.size(), nullptr, 0, nullptr, 0,
                                    timeout, &token);
  if (!failed) calls[token] = id_;
  return !failed;
}

EXPORT(proxy_abi_version_0_2_1) void abiVersion() {}
EXPORT(proxy_on_vm_start) uint32_t exportVmStart(uint32_t, uint32_t) { return 1; }
EXPORT(proxy_on_configure) uint32_t exportConfigure(uint32_t, uint32_t) { return onConfigure(); }
EXPORT(proxy_on_tick) void exportTick(uint32_t) { onTick(); }
EXPORT(proxy_on_done) uint32_t exportDone(uint32_t) { return 1; }
EXPORT(proxy_on_log) void exportLog(uint32_t id) { contexts[id]->onLog(); }
EXPORT(proxy_on_delete) void exportDelete(uint32_t id) { contexts.erase(id); }

EXPORT(proxy_on_context_create) void exportContextCreate(uint32_t id, uint32_t root) {
  if (root) contexts[id] = std::make_unique<Context>(id);
}

EXPORT(proxy_on_request_headers) Action exportRequestHeaders(uint32_t id, uint32_t, uint32_t) {
  return contexts[id]->onRequestHeaders();
}

EXPORT(proxy_on_request_body) Action exportRequestBody(uint32_t id, uint32_t size, uint32_t end) {
  return contexts[id]->onRequestBody(size, end);
}

EXPORT(proxy_on_response_headers) Action exportResponseHeaders(uint32_t id, uint32_t, uint32_t) {
  return contexts[id]->onResponseHeaders();
}

EXPORT(proxy_on_response_body) Action exportResponseBody(uint32_t id, uint32_t size, uint32_t end) {
  return contexts[id]->onResponseBody(size, end);
}

EXPORT(proxy_on_http_call_response) void exportHttpCallResponse(uint32_t, uint32_t token, uint32_t, uint32_t size, uint32_t) {
  auto call = calls.find(token);
  if (call == calls.end()) return;
  uint32_t id = call->second;
  calls.erase(call);
  auto context = contexts.find(id);
  if (context == contexts.end() || proxy_set_effective_context(id)) return;
  context->second->onHttpCallResponse(size);
}
