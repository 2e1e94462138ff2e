// The workload that runs inside a sandbox: a small HTTP server that does one kind of work per endpoint and reports by a
// callback that it is ready. The contract that it shares with the workloads in other languages is in
// workloads/README.md.
//
// It needs nothing but the standard library, so that it builds without a network and with the Go of a distribution.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Exit codes.
const (
	exitFailure = 1
	// exitUsage is for a command line that can't be followed.
	exitUsage = 2
)

func main() {
	start := time.Now()
	arguments, err := parseArguments(os.Args[1:])
	if errors.Is(err, errHelp) {
		fmt.Println(usage)
		return
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s\n", err, usage)
		os.Exit(exitUsage)
	}
	endOnSignals()
	// A sandbox may have closed standard output, which is no reason to stop serving.
	signal.Ignore(syscall.SIGPIPE)
	if err := run(arguments, start); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(exitFailure)
	}
}

// run serves; it returns only if that fails.
func run(arguments arguments, start time.Time) error {
	address := fmt.Sprintf("0.0.0.0:%d", arguments.port)
	listener, err := net.Listen("tcp4", address)
	if err != nil {
		return fmt.Errorf("can't listen on %s (--port takes another port): %w", address, err)
	}
	sinceMain := time.Since(start)
	fmt.Printf("listening on %s\n", listener.Addr())
	if arguments.callback != nil {
		go func() {
			if err := sendCallback(arguments.callback, sinceMain); err != nil {
				fmt.Fprintf(os.Stderr, "the callback to %s failed: %v\n", arguments.callback, err)
			}
		}()
	}
	return newServer(arguments.files).Serve(listener)
}

// endOnSignals ends the process on SIGTERM and SIGINT whatever work is running. As process 1 of a container nothing but
// an installed handler does.
func endOnSignals() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-signals
		os.Exit(0)
	}()
}
