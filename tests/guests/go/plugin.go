// What every guest of this folder's languages does: asks an upstream about a token, turns request bodies round, makes response
// bodies upper case, and counts its ticks where all of its VMs can see them.
package main

import (
	"bytes"
	"strconv"
)

var greeting string

func onConfigure() bool {
	greeting = string(buffer(pluginConfiguration, 0, 1<<20))
	setTickPeriod(5)
	return true
}

func onTick() {
	ticks, cas := sharedData("ticks")
	count, _ := strconv.Atoi(string(ticks))
	// Another VM may have been quicker; there will be other ticks.
	setSharedData("ticks", []byte(strconv.Itoa(count+1)), cas)
}

func onRequestHeaders() action {
	token, _ := header(requestHeaders, "x-token")
	setHeader(requestHeaders, "x-greeting", greeting)
	removeHeader(requestHeaders, "content-length")
	called := httpCall("origin", [][2]string{
		{":method", "GET"}, {":path", "/authorize"}, {":authority", "authorizer"}, {"x-token", token},
	}, 5000)
	if !called {
		return carryOn
	}
	return pause
}

func onHTTPCallResponse(bodySize int) {
	if status, _ := header(callResponseHeaders, ":status"); status != "200" {
		reply(403, "refused")
		return
	}
	setHeader(requestHeaders, "x-authorized", string(buffer(callResponseBody, 0, bodySize)))
	continueStream(httpRequest)
}

func onRequestBody(size int, end bool) action {
	if !end {
		return pause
	}
	body := buffer(requestBody, 0, size)
	for i, j := 0, len(body)-1; i < j; i, j = i+1, j-1 {
		body[i], body[j] = body[j], body[i]
	}
	setBuffer(requestBody, 0, size, body)
	return carryOn
}

func onResponseHeaders() action {
	ticks, _ := sharedData("ticks")
	removeHeader(responseHeaders, "content-length")
	setHeader(responseHeaders, "x-ticks", string(ticks))
	return carryOn
}

func onResponseBody(size int, end bool) action {
	if !end {
		return pause
	}
	setBuffer(responseBody, 0, size, bytes.ToUpper(buffer(responseBody, 0, size)))
	return carryOn
}

func onLog() {
	path, _ := header(requestHeaders, ":path")
	log(info, "served "+path)
}
