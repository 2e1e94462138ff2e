// The command line.

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"strconv"
)

const usage = `usage: workload CALLBACK-URL|ignore [--port 8080] [--static-file PATH] [--scratch DIRECTORY]

  CALLBACK-URL          gets one GET request as soon as the server listens, such as http://10.0.0.1:3000/ready/7;
                        the word "ignore" stands for no callback
  --port N              TCP port to listen on, 0 for any free one [default: 8080]
  --static-file PATH    file that /static and /read deliver and /unzip extracts [default: static_file]
  --scratch DIRECTORY   directory that /unzip empties and extracts to [default: unzipped]`

// errHelp says that the command line asks for usage.
var errHelp = flag.ErrHelp

// arguments says how to serve.
type arguments struct {
	// callback is where to report readiness; nil: nowhere.
	callback *url.URL
	// port is a TCP port; 0 lets the kernel choose.
	port  uint16
	files files
}

// parseArguments parses what follows the program's name. Flags may stand on both sides of the callback.
func parseArguments(list []string) (arguments, error) {
	parsed := arguments{port: 8080, files: files{static: "static_file", scratch: "unzipped"}}
	set := flag.NewFlagSet("workload", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.Usage = func() {}
	set.Func("port", "", func(text string) error {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return errors.New("it must be a whole number from 0 to 65535")
		}
		parsed.port = uint16(port)
		return nil
	})
	set.Func("static-file", "", pathInto(&parsed.files.static))
	set.Func("scratch", "", pathInto(&parsed.files.scratch))

	var positional []string
	for {
		if err := set.Parse(list); err != nil {
			return arguments{}, err
		}
		if set.NArg() == 0 {
			break
		}
		positional = append(positional, set.Arg(0))
		list = set.Args()[1:]
	}
	switch {
	case len(positional) == 0:
		return arguments{}, errors.New(`the callback URL is missing; use "ignore" for none`)
	case len(positional) > 1:
		return arguments{}, fmt.Errorf("unexpected argument %q", positional[1])
	case positional[0] != "ignore":
		callback, err := parseCallback(positional[0])
		if err != nil {
			return arguments{}, err
		}
		parsed.callback = callback
	}
	return parsed, nil
}

func pathInto(target *string) func(string) error {
	return func(path string) error {
		if path == "" {
			return errors.New("it must be a path that is not empty")
		}
		*target = path
		return nil
	}
}
