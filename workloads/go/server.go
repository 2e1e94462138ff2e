// What the server can be asked to do: paths, their parameters, and how each outcome is answered.

package main

import (
	"fmt"
	"net/http"
)

// maxHeadBytes bounds request line and headers; net/http adds 4096 to it.
const maxHeadBytes = 12 * 1024

// files is what the file endpoints work on.
type files struct {
	// static is the file that /static and /read deliver and /unzip extracts.
	static string
	// scratch is the directory that /unzip empties and fills.
	scratch string
}

var (
	fibNumber   = parameter{name: "n", min: 1, max: 10_000_000_000}
	fftLength   = parameter{name: "n", min: 1, max: 1 << 24}
	matrixSide  = parameter{name: "n", min: 1, max: 4096}
	allocAmount = parameter{name: "mib", min: 1, max: 65_536, fallback: 50}
)

// work does what an endpoint is there for and returns what its answer says between brackets.
type work func(files files, number uint64) (string, error)

// endpoint is one path.
type endpoint struct {
	// takes is nil when it ignores the query.
	takes *parameter
	does  work
}

var endpoints = map[string]endpoint{
	"/fib": {&fibNumber, func(_ files, n uint64) (string, error) {
		return fmt.Sprint(fibonacci(n)), nil
	}},
	"/fft": {&fftLength, func(_ files, n uint64) (string, error) {
		return fmt.Sprintf("%d ns", fourierTransformTime(int(n)).Nanoseconds()), nil
	}},
	"/matrix": {&matrixSide, func(_ files, n uint64) (string, error) {
		return fmt.Sprintf("%d ns", matrixSquareTime(int(n)).Nanoseconds()), nil
	}},
	"/read": {nil, func(files files, _ uint64) (string, error) {
		bytes, err := readStatic(files.static)
		return fmt.Sprintf("read %d bytes", bytes), err
	}},
	"/alloc": {&allocAmount, func(_ files, mib uint64) (string, error) {
		pages, err := touchMemory(int(mib))
		return fmt.Sprintf("%d pages", pages), err
	}},
	"/unzip": {nil, func(files files, _ uint64) (string, error) {
		done, err := extract(files.static, files.scratch, defaultLimits)
		return fmt.Sprintf("%d files, %d bytes", done.files, done.bytes), err
	}},
}

// newServer makes the server. It has no time limits: their timers would wake a server that is measured for how often it
// wakes up.
func newServer(files files) *http.Server {
	return &http.Server{
		MaxHeaderBytes: maxHeadBytes,
		Handler: http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
			answer(writer, request, files)
		}),
	}
}

// answer answers one request. Paths are compared by hand: http.ServeMux would redirect those that it finds untidy.
func answer(writer http.ResponseWriter, request *http.Request, files files) {
	path := request.URL.EscapedPath()
	endpoint, computes := endpoints[path]
	switch {
	case !computes && path != "/hello" && path != "/static":
		text(writer, http.StatusNotFound,
			fmt.Sprintf("%q is unknown: /hello /fib /fft /matrix /read /alloc /unzip /static are there", path))
	case request.Method != http.MethodGet:
		writer.Header().Set("Allow", http.MethodGet)
		text(writer, http.StatusMethodNotAllowed, fmt.Sprintf("%s is not allowed: use GET", request.Method))
	case path == "/hello":
		text(writer, http.StatusOK, "Hello from sandscope")
	case path == "/static":
		if err := sendStatic(writer, files.static); err != nil {
			text(writer, http.StatusInternalServerError, err.Error())
		}
	default:
		perform(writer, endpoint, request.URL.RawQuery, files)
	}
}

func perform(writer http.ResponseWriter, endpoint endpoint, query string, files files) {
	var number uint64
	if endpoint.takes != nil {
		var err error
		if number, err = endpoint.takes.value(query); err != nil {
			text(writer, http.StatusBadRequest, err.Error())
			return
		}
	}
	done, err := endpoint.does(files, number)
	if err != nil {
		text(writer, http.StatusInternalServerError, err.Error())
		return
	}
	text(writer, http.StatusOK, fmt.Sprintf("Done (%s)", done))
}

func text(writer http.ResponseWriter, status int, line string) {
	writer.Header().Set("Content-Type", "text/plain; charset=utf-8")
	writer.WriteHeader(status)
	fmt.Fprintln(writer, line)
}
