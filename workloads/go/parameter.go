// The one number that an endpoint may take from the query of the URL.

package main

import (
	"fmt"
	"strconv"
	"strings"
)

// parameter is the one number that an endpoint may take from the query of the URL.
type parameter struct {
	name string
	// Allowed values.
	min, max uint64
	// fallback is the value when it is absent; 0: it must not be.
	fallback uint64
}

// value takes the number from the query. A parameter of another name is an error: a misspelt one would otherwise pass
// for absent.
func (p parameter) value(query string) (uint64, error) {
	text, found := "", false
	for _, pair := range strings.Split(query, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		if name != p.name {
			return 0, fmt.Errorf("the parameter %q is unknown: %s is expected", name, p.rule())
		}
		if found {
			return 0, fmt.Errorf("the parameter %q is given twice: %s is expected once", name, p.rule())
		}
		text, found = value, true
	}
	if !found {
		if p.fallback != 0 {
			return p.fallback, nil
		}
		return 0, fmt.Errorf("a parameter is missing: %s is expected", p.rule())
	}
	number, err := strconv.ParseUint(text, 10, 64)
	if err != nil || number < p.min || number > p.max {
		return 0, fmt.Errorf("the parameter %q is %q: %s is expected", p.name, text, p.rule())
	}
	return number, nil
}

func (p parameter) rule() string {
	return fmt.Sprintf("%s, a whole number from %d to %d,", p.name, p.min, p.max)
}
