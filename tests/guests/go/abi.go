// What a Go SDK does for its plugins: the host's functions with Go's types, and the exports that call the plugin.
package main

import (
	"encoding/binary"
	"runtime"
	"unsafe"
)

type action uint32

const (
	carryOn action = 0
	pause   action = 1
)

// The ABI's numbers, as far as the plugin needs them.
const (
	info = 2

	requestBody         = 0
	responseBody        = 1
	callResponseBody    = 4
	pluginConfiguration = 7

	requestHeaders      = 0
	responseHeaders     = 2
	callResponseHeaders = 6

	httpRequest = 0
)

//go:wasmimport env proxy_log
func hostLog(level uint32, text unsafe.Pointer, size uint32) uint32

//go:wasmimport env proxy_set_tick_period_milliseconds
func hostSetTickPeriod(period uint32) uint32

//go:wasmimport env proxy_get_buffer_bytes
func hostGetBuffer(kind, start, size uint32, out, outSize unsafe.Pointer) uint32

//go:wasmimport env proxy_set_buffer_bytes
func hostSetBuffer(kind, start, size uint32, data unsafe.Pointer, dataSize uint32) uint32

//go:wasmimport env proxy_get_header_map_value
func hostGetHeader(kind uint32, name unsafe.Pointer, nameSize uint32, out, outSize unsafe.Pointer) uint32

//go:wasmimport env proxy_replace_header_map_value
func hostSetHeader(kind uint32, name unsafe.Pointer, nameSize uint32, value unsafe.Pointer, valueSize uint32) uint32

//go:wasmimport env proxy_remove_header_map_value
func hostRemoveHeader(kind uint32, name unsafe.Pointer, nameSize uint32) uint32

//go:wasmimport env proxy_continue_stream
func hostContinueStream(kind uint32) uint32

//go:wasmimport env proxy_send_local_response
func hostReply(status uint32, details unsafe.Pointer, detailsSize uint32, body unsafe.Pointer, bodySize uint32,
	headers unsafe.Pointer, headersSize uint32, grpcStatus int32) uint32

//go:wasmimport env proxy_http_call
func hostHTTPCall(upstream unsafe.Pointer, upstreamSize uint32, headers unsafe.Pointer, headersSize uint32,
	body unsafe.Pointer, bodySize uint32, trailers unsafe.Pointer, trailersSize uint32,
	timeout uint32, token unsafe.Pointer) uint32

//go:wasmimport env proxy_set_effective_context
func hostSetEffectiveContext(context uint32) uint32

//go:wasmimport env proxy_get_shared_data
func hostGetSharedData(key unsafe.Pointer, keySize uint32, out, outSize, cas unsafe.Pointer) uint32

//go:wasmimport env proxy_set_shared_data
func hostSetSharedData(key unsafe.Pointer, keySize uint32, value unsafe.Pointer, valueSize uint32, cas uint32) uint32

func text(s string) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.StringData(s)), uint32(len(s))
}

func data(b []byte) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b))
}

// A value that the host has put into memory it had from proxy_on_memory_allocate. Addresses are written as 32 bits, into the
// lower half of a Go pointer.
type given struct {
	address *byte
	size    uint32
}

func (g *given) places() (unsafe.Pointer, unsafe.Pointer) {
	return unsafe.Pointer(&g.address), unsafe.Pointer(&g.size)
}

func (g *given) bytes() []byte {
	return unsafe.Slice(g.address, g.size)
}

func log(level uint32, line string) {
	address, size := text(line)
	hostLog(level, address, size)
}

func setTickPeriod(period uint32) { hostSetTickPeriod(period) }

func buffer(kind uint32, start, size int) []byte {
	var g given
	out, outSize := g.places()
	if hostGetBuffer(kind, uint32(start), uint32(size), out, outSize) != 0 {
		return nil
	}
	return g.bytes()
}

func setBuffer(kind uint32, start, size int, bytes []byte) {
	address, length := data(bytes)
	hostSetBuffer(kind, uint32(start), uint32(size), address, length)
	runtime.KeepAlive(bytes)
}

func header(kind uint32, name string) (string, bool) {
	var g given
	out, outSize := g.places()
	address, size := text(name)
	if hostGetHeader(kind, address, size, out, outSize) != 0 {
		return "", false
	}
	return string(g.bytes()), true
}

func setHeader(kind uint32, name, value string) {
	address, size := text(name)
	valueAddress, valueSize := text(value)
	hostSetHeader(kind, address, size, valueAddress, valueSize)
}

func removeHeader(kind uint32, name string) {
	address, size := text(name)
	hostRemoveHeader(kind, address, size)
}

func continueStream(kind uint32) { hostContinueStream(kind) }

func reply(status uint32, body string) {
	address, size := text(body)
	hostReply(status, nil, 0, address, size, nil, 0, -1)
}

func pairs(fields [][2]string) []byte {
	out := binary.LittleEndian.AppendUint32(nil, uint32(len(fields)))
	for _, field := range fields {
		out = binary.LittleEndian.AppendUint32(out, uint32(len(field[0])))
		out = binary.LittleEndian.AppendUint32(out, uint32(len(field[1])))
	}
	for _, field := range fields {
		out = append(append(out, field[0]...), 0)
		out = append(append(out, field[1]...), 0)
	}
	return out
}

// Whose request waits for which call.
var waiting = map[uint32]uint32{}

func httpCall(upstream string, fields [][2]string, timeout uint32) bool {
	var token uint32
	name, nameSize := text(upstream)
	headers := pairs(fields)
	address, size := data(headers)
	status := hostHTTPCall(name, nameSize, address, size, nil, 0, nil, 0, timeout, unsafe.Pointer(&token))
	runtime.KeepAlive(headers)
	if status == 0 {
		waiting[token] = current
	}
	return status == 0
}

func sharedData(key string) ([]byte, uint32) {
	var g given
	var cas uint32
	out, outSize := g.places()
	address, size := text(key)
	if hostGetSharedData(address, size, out, outSize, unsafe.Pointer(&cas)) != 0 {
		return nil, 0
	}
	return g.bytes(), cas
}

func setSharedData(key string, value []byte, cas uint32) bool {
	address, size := text(key)
	valueAddress, valueSize := data(value)
	defer runtime.KeepAlive(value)
	return hostSetSharedData(address, size, valueAddress, valueSize, cas) == 0
}

// The context whose callback runs.
var current uint32

//go:wasmexport proxy_abi_version_0_2_0
func abiVersion() {}

//go:wasmexport proxy_on_memory_allocate
func onMemoryAllocate(size uint32) unsafe.Pointer {
	return unsafe.Pointer(unsafe.SliceData(make([]byte, size)))
}

//go:wasmexport proxy_on_context_create
func exportContextCreate(context, root uint32) {}

//go:wasmexport proxy_on_vm_start
func exportVMStart(root, size uint32) bool { return true }

//go:wasmexport proxy_on_configure
func exportConfigure(root, size uint32) bool { return onConfigure() }

//go:wasmexport proxy_on_tick
func exportTick(root uint32) { onTick() }

//go:wasmexport proxy_on_request_headers
func exportRequestHeaders(context, count uint32, end bool) action {
	current = context
	return onRequestHeaders()
}

//go:wasmexport proxy_on_request_body
func exportRequestBody(context, size uint32, end bool) action { return onRequestBody(int(size), end) }

//go:wasmexport proxy_on_response_headers
func exportResponseHeaders(context, count uint32, end bool) action { return onResponseHeaders() }

//go:wasmexport proxy_on_response_body
func exportResponseBody(context, size uint32, end bool) action { return onResponseBody(int(size), end) }

//go:wasmexport proxy_on_http_call_response
func exportHTTPCallResponse(root, token, headers, bodySize, trailers uint32) {
	context, known := waiting[token]
	if !known {
		return
	}
	delete(waiting, token)
	if hostSetEffectiveContext(context) == 0 {
		onHTTPCallResponse(int(bodySize))
	}
}

//go:wasmexport proxy_on_log
func exportLog(context uint32) { onLog() }

//go:wasmexport proxy_on_done
func exportDone(context uint32) bool { return true }

//go:wasmexport proxy_on_delete
func exportDelete(context uint32) {}

// Never called: a library's work begins at its exports.
func main() {}
