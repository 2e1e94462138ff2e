package main

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writeArchive makes an archive with one stored file that claims some length, and returns its path.
func writeArchive(t *testing.T, content []byte, claimed uint64) string {
	t.Helper()
	var buffer bytes.Buffer
	writer := zip.NewWriter(&buffer)
	file, err := writer.CreateRaw(&zip.FileHeader{
		Name:               "name",
		Method:             zip.Store,
		CompressedSize64:   uint64(len(content)),
		UncompressedSize64: claimed,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(path, buffer.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLimitsOfExtraction(t *testing.T) {
	archive := writeArchive(t, nil, 7)
	for _, c := range []struct {
		limits limits
		reason string
	}{
		{limits{bytes: 6, entries: 1}, "more than 6 bytes"},
		{limits{bytes: 7, entries: 0}, "1 entries, more than 0"},
	} {
		if _, err := extract(archive, t.TempDir(), c.limits); err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%v should give %q: %v", c.limits, c.reason, err)
		}
	}
}

func TestLyingAboutLengthIsNoWayAroundLimit(t *testing.T) {
	archive, scratch := writeArchive(t, make([]byte, 100_000), 10), t.TempDir()
	if _, err := extract(archive, scratch, limits{bytes: 1000, entries: 1}); err == nil {
		t.Error("the archive should be refused")
	}
	info, err := os.Stat(filepath.Join(scratch, "name"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 1001 {
		t.Errorf("%d bytes were written", info.Size())
	}
}
