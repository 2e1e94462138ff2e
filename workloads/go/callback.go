// Tells the host that the server is ready: one GET request, sent once, after the socket listens.

package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

// sinceMainHeader carries the nanoseconds of monotonic time from the start of main to the moment just after listen.
const sinceMainHeader = "sandscope-since-main-ns"

// callbackPatience is the longest time from the first packet of the connection to the head of the response.
const callbackPatience = 5 * time.Second

// parseCallback takes http URLs whose host is an IPv4 address, since a sandbox has no resolver.
func parseCallback(text string) (*url.URL, error) {
	wrong := func(reason any) error {
		return fmt.Errorf("the callback URL %q can't be used: %v", text, reason)
	}
	callback, err := url.Parse(text)
	if err != nil {
		var parse *url.Error
		if errors.As(err, &parse) {
			err = parse.Err
		}
		return nil, wrong(err)
	}
	if callback.Scheme != "http" {
		return nil, wrong("it must start with http://")
	}
	const wanted = "its host must be an IPv4 address, with or without a port, such as 10.0.0.1:3000"
	host, err := netip.ParseAddr(callback.Hostname())
	if err != nil || !host.Is4() || callback.User != nil {
		return nil, wrong(wanted)
	}
	if callback.Host != callback.Hostname() {
		if _, err := strconv.ParseUint(callback.Port(), 10, 16); err != nil {
			return nil, wrong(wanted)
		}
	}
	return callback, nil
}

// sendCallback sends one request, and no second one whatever the answer is.
func sendCallback(callback *url.URL, sinceMain time.Duration) error {
	request, err := http.NewRequest(http.MethodGet, callback.String(), nil)
	if err != nil {
		return err
	}
	request.Header.Set(sinceMainHeader, strconv.FormatInt(sinceMain.Nanoseconds(), 10))
	client := http.Client{
		// Not the default transport: that one asks the environment for a proxy.
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       callbackPatience,
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return fmt.Errorf("the answer is %s", response.Status)
	}
	return nil
}
