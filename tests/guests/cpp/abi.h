// What a C++ SDK offers its plugins: the host's functions with C++ types, and the context that the exports in abi.cc call.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#define HOST(name) extern "C" __attribute__((import_module("env"), import_name(#name))) uint32_t name

HOST(proxy_log)(uint32_t level, const char *text, size_t size);
HOST(proxy_set_tick_period_milliseconds)(uint32_t period);
HOST(proxy_get_buffer_bytes)(uint32_t kind, size_t start, size_t max, char **out, size_t *size);
HOST(proxy_set_buffer_bytes)(uint32_t kind, size_t start, size_t size, const char *data, size_t dataSize);
HOST(proxy_get_header_map_value)(uint32_t map, const char *name, size_t nameSize, char **out, size_t *size);
HOST(proxy_replace_header_map_value)(uint32_t map, const char *name, size_t nameSize, const char *value, size_t valueSize);
HOST(proxy_remove_header_map_value)(uint32_t map, const char *name, size_t nameSize);
HOST(proxy_continue_stream)(uint32_t kind);
HOST(proxy_send_local_response)(uint32_t status, const char *details, size_t detailsSize, const char *body, size_t bodySize,
                                const char *headers, size_t headersSize, uint32_t grpcStatus);
HOST(proxy_http_call)(const char *upstream, size_t upstreamSize, const char *headers, size_t headersSize, const char *body,
                      size_t bodySize, const char *trailers, size_t trailersSize, uint32_t timeout, uint32_t *token);
HOST(proxy_set_effective_context)(uint32_t context);
HOST(proxy_get_shared_data)(const char *key, size_t keySize, char **out, size_t *size, uint32_t *cas);
HOST(proxy_set_shared_data)(const char *key, size_t keySize, const char *value, size_t valueSize, uint32_t cas);

enum class Action : uint32_t { Continue = 0, Pause = 1 };
enum class Level : uint32_t { Info = 2 };
enum class Buffer : uint32_t { RequestBody = 0, ResponseBody = 1, HttpCallResponseBody = 4, PluginConfiguration = 7 };
enum class Map : uint32_t { RequestHeaders = 0, ResponseHeaders = 2, HttpCallResponseHeaders = 6 };

using Fields = std::vector<std::pair<std::string, std::string>>;

void log(Level level, std::string_view text);
std::string buffer(Buffer kind, size_t start, size_t max);
void setBuffer(Buffer kind, size_t start, size_t size, std::string_view data);
std::string header(Map map, std::string_view name);
void setHeader(Map map, std::string_view name, std::string_view value);
void removeHeader(Map map, std::string_view name);
void reply(uint32_t status, std::string_view body);
std::string sharedData(std::string_view key, uint32_t *cas);
bool setSharedData(std::string_view key, std::string_view value, uint32_t cas);

/// One request, as the plugin sees it.
class Context {
public:
  explicit Context(uint32_t id) : id_(id) {}
  Action onRequestHeaders();
  Action onRequestBody(size_t size, bool end);
  Action onResponseHeaders();
  Action onResponseBody(size_t size, bool end);
  void onHttpCallResponse(size_t bodySize);
  void onLog();
  bool httpCall(std::string_view upstream, const Fields &fields, uint32_t timeout);

private:
  uint32_t id_;
};

bool onConfigure();
void onTick();
