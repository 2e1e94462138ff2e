// Extracting an archive that may be hostile: nothing is written outside the scratch directory or beyond the limits.

package main

import (
	"archive/zip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// limits says how much may be extracted.
type limits struct {
	// bytes is the sum of the lengths of all files.
	bytes uint64
	// entries are files and directories.
	entries int
}

var defaultLimits = limits{bytes: 1 << 30, entries: 65_536}

// extracted says what was extracted: regular files, and the sum of their lengths.
type extracted struct {
	files, bytes uint64
}

// Two requests at a time would delete each other's files.
var oneExtractionAtATime sync.Mutex

// extract empties the directory scratch, makes it if need be, and extracts the archive to it. The archive may be
// hostile: nothing is written outside of scratch or beyond the limits. A look at the archive's directory comes first,
// so an archive that is refused for what that says leaves scratch as it was.
func extract(archive, scratch string, limits limits) (extracted, error) {
	oneExtractionAtATime.Lock()
	defer oneExtractionAtATime.Unlock()

	var done extracted
	inArchive := func(err error) error { return fmt.Errorf("can't extract %s: %w", archive, err) }
	if _, err := regularFileBytes(archive); err != nil {
		return done, err
	}
	reader, err := zip.OpenReader(archive)
	if err != nil {
		return done, inArchive(err)
	}
	defer reader.Close()
	if err := check(reader.File, limits); err != nil {
		return done, inArchive(err)
	}
	if err := empty(scratch, archive); err != nil {
		return done, fmt.Errorf("can't empty %s: %w", scratch, err)
	}
	for _, entry := range reader.File {
		path := filepath.Join(scratch, entry.Name)
		if strings.HasSuffix(entry.Name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				return done, err
			}
			continue
		}
		// The archive's directory may have lied.
		room := limits.bytes - done.bytes
		bytes, err := extractFile(entry, path, room)
		if err != nil {
			return done, inArchive(err)
		}
		done.files++
		done.bytes += bytes
	}
	return done, nil
}

// extractFile writes one file of at most room bytes, and the directories above it.
func extractFile(entry *zip.File, path string, room uint64) (uint64, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return 0, err
	}
	source, err := entry.Open()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", entry.Name, err)
	}
	defer source.Close()
	target, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	bytes, err := io.Copy(target, io.LimitReader(source, int64(room)+1))
	if closing := target.Close(); err == nil {
		err = closing
	}
	if err == nil && uint64(bytes) > room {
		err = fmt.Errorf("it holds more bytes than allowed: %d were left", room)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", entry.Name, err)
	}
	return uint64(bytes), nil
}

// check refuses an archive for what its directory says.
func check(entries []*zip.File, limits limits) error {
	if len(entries) > limits.entries {
		return fmt.Errorf("it holds %d entries, more than %d", len(entries), limits.entries)
	}
	left := limits.bytes
	for _, entry := range entries {
		if !staysBelow(entry.Name) {
			return fmt.Errorf("the name %q could lead out of the directory", entry.Name)
		}
		if kind := entry.Mode().Type(); kind != 0 && kind != fs.ModeDir {
			return fmt.Errorf("%q is neither a file nor a directory", entry.Name)
		}
		if entry.UncompressedSize64 > left {
			return fmt.Errorf("it holds more than %d bytes", limits.bytes)
		}
		left -= entry.UncompressedSize64
	}
	return nil
}

// staysBelow tells whether a name leads to a place below the directory that it is joined to.
func staysBelow(name string) bool {
	if strings.HasPrefix(name, "/") || strings.ContainsAny(name, "\\\x00") {
		return false
	}
	for _, part := range strings.Split(name, "/") {
		if part == ".." {
			return false
		}
	}
	return true
}

// empty makes scratch an empty directory. The directory itself stays: it may be a mount point.
func empty(scratch, archive string) error {
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return err
	}
	scratch, err := realPath(scratch)
	if err != nil {
		return err
	}
	for _, precious := range []string{archive, "."} {
		precious, err := realPath(precious)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(scratch, precious)
		if err != nil {
			return err
		}
		if relative != ".." && !strings.HasPrefix(relative, "../") {
			return fmt.Errorf("it holds %s, so --scratch must name another directory", precious)
		}
	}
	entries, err := os.ReadDir(scratch)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(scratch, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// realPath is absolute and free of symbolic links.
func realPath(path string) (string, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(absolute)
}
