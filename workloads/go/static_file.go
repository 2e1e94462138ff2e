// The static file: read whole, or streamed as the body of a response.

package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
)

// readStatic reads the whole file into memory and returns its number of bytes.
func readStatic(path string) (int, error) {
	if _, err := regularFileBytes(path); err != nil {
		return 0, err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("can't read the static file: %w", err)
	}
	return len(content), nil
}

// sendStatic sends the file as body of a response. It returns an error only if nothing was sent.
func sendStatic(writer http.ResponseWriter, path string) error {
	bytes, err := regularFileBytes(path)
	if err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("can't read the static file: %w", err)
	}
	defer file.Close()
	writer.Header().Set("Content-Type", "application/octet-stream")
	writer.Header().Set("Content-Length", strconv.FormatInt(bytes, 10))
	// With CopyN, net/http uses sendfile in every version of Go. If the file became shorter, it breaks the connection.
	_, _ = io.CopyN(writer, file, bytes)
	return nil
}

// regularFileBytes is the length of a regular file. Anything else might block or never end.
func regularFileBytes(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, fmt.Errorf("can't read the static file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("can't read %s: it is not a regular file", path)
	}
	return info.Size(), nil
}
