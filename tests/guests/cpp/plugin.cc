// Asks an upstream about a token, turns request bodies round, makes response bodies upper case, and counts its ticks where all
// of its VMs can see them.
#include "abi.h"

#include <algorithm>

static std::string greeting;

bool onConfigure() {
  greeting = buffer(Buffer::PluginConfiguration, 0, 1 << 20);
  proxy_set_tick_period_milliseconds(5);
  return true;
}

void onTick() {
  uint32_t cas = 0;
  std::string ticks = sharedData("ticks", &cas);
  // Another VM may have been quicker; there will be other ticks.
  setSharedData("ticks", std::to_string(ticks.empty() ? 1 : std::stoi(ticks) + 1), cas);
}

Action Context::onRequestHeaders() {
  std::string token = header(Map::RequestHeaders, "x-token");
  setHeader(Map::RequestHeaders, "x-greeting", greeting);
  removeHeader(Map::RequestHeaders, "content-length");
  Fields fields = {{":method", "GET"}, {":path", "/authorize"}, {":authority", "authorizer"}, {"x-token", token}};
  return httpCall("origin", fields, 5000) ? Action::Pause : Action::Continue;
}

void Context::onHttpCallResponse(size_t bodySize) {
  if (header(Map::HttpCallResponseHeaders, ":status") != "200") {
    reply(403, "refused");
    return;
  }
  setHeader(Map::RequestHeaders, "x-authorized", buffer(Buffer::HttpCallResponseBody, 0, bodySize));
  proxy_continue_stream(0);
}

Action Context::onRequestBody(size_t size, bool end) {
  if (!end) return Action::Pause;
  std::string body = buffer(Buffer::RequestBody, 0, size);
  std::reverse(body.begin(), body.end());
  setBuffer(Buffer::RequestBody, 0, size, body);
  return Action::Continue;
}

Action Context::onResponseHeaders() {
  uint32_t cas;
  removeHeader(Map::ResponseHeaders, "content-length");
  setHeader(Map::ResponseHeaders, "x-ticks", sharedData("ticks", &cas));
  return Action::Continue;
}

Action Context::onResponseBody(size_t size, bool end) {
  if (!end) return Action::Pause;
  std::string body = buffer(Buffer::ResponseBody, 0, size);
  std::transform(body.begin(), body.end(), body.begin(), [](unsigned char c) { return c >= 'a' && c <= 'z' ? c - 32 : c; });
  setBuffer(Buffer::ResponseBody, 0, size, body);
  return Action::Continue;
}

void Context::onLog() {
  log(Level::Info, "served " + header(Map::RequestHeaders, ":path"));
}
