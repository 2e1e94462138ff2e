"""Extracting an archive that may be hostile.

Nothing is written outside the scratch directory or beyond the limits.
"""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
from _thread import allocate_lock

from output import quoted
from static_file import open_regular

# Bytes that come out of the archive at a time.
CHUNK_BYTES = 256 * 1024

# Systems whose archives hold the mode of Unix: itself, and macOS.
UNIX_MODES = (3, 19)

# Two requests at a time would delete each other's files.
_one_at_a_time = allocate_lock()


class UnzipError(Exception):
    """An archive that can't be extracted, or must not be."""


class Limits:
    """How much may be extracted: the sum of the lengths of all files; the number of entries."""

    def __init__(self, total_bytes: int = 1 << 30, entries: int = 65_536) -> None:
        self.bytes = total_bytes
        self.entries = entries


class Extracted:
    """What was extracted: regular files, and the sum of their lengths."""

    def __init__(self) -> None:
        self.files = 0
        self.bytes = 0


def extract(archive: str, scratch: str, limits: Limits | None = None) -> Extracted:
    """Empties the directory scratch, makes it if need be, and extracts the archive to it.

    A look at the archive's directory comes first, so an archive that is refused for what that says
    leaves scratch as it was.
    """
    limits = limits or Limits()
    with _one_at_a_time, open_regular(archive) as file:
        try:
            with zipfile.ZipFile(file) as opened:
                _check(opened.infolist(), limits)
                _empty(scratch, archive)
                return _extract_all(opened, scratch, limits)
        # A broken archive gives zipfile many kinds of errors, few of which are its own.
        except Exception as error:
            raise UnzipError(f"can't extract {archive}: {error}") from error


def _extract_all(opened: zipfile.ZipFile, scratch: str, limits: Limits) -> Extracted:
    done = Extracted()
    for entry in opened.infolist():
        path = os.path.join(scratch, entry.filename)
        if entry.filename.endswith("/"):
            os.makedirs(path, exist_ok=True)
            continue
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            # The archive's directory may have lied.
            done.bytes += _extract_file(opened, entry, path, limits.bytes - done.bytes)
        except zipfile.BadZipFile as error:
            raise UnzipError(f"a length or checksum is wrong: {error}") from error
        done.files += 1
    return done


def _extract_file(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, path: str, room: int) -> int:
    """Writes one file of at most `room` bytes; returns its length."""
    written = 0
    with opened.open(entry) as source, open(path, "xb", buffering=0) as target:
        while True:
            chunk = source.read(CHUNK_BYTES)
            if not chunk:
                break
            written += len(chunk)
            if written > room:
                raise UnzipError(f"{quoted(entry.filename)} holds more than it says")
            target.write(chunk)
    if written != entry.file_size:
        raise UnzipError(f"{quoted(entry.filename)} holds less than it says")
    return written


def _check(entries: list[zipfile.ZipInfo], limits: Limits) -> None:
    """Refuses an archive for what its directory says."""
    if len(entries) > limits.entries:
        raise UnzipError(f"it holds {len(entries)} entries, more than {limits.entries}")
    left = limits.bytes
    for entry in entries:
        # As it stands in the archive; zipfile cuts the other one at a zero.
        name = entry.orig_filename
        if not _stays_below(name):
            raise UnzipError(f"the name {quoted(name)} could lead out of the directory")
        mode = entry.external_attr >> 16 if entry.create_system in UNIX_MODES else 0
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UnzipError(f"{quoted(name)} is neither a file nor a directory")
        left -= entry.file_size
        if left < 0:
            raise UnzipError(f"it holds more than {limits.bytes} bytes")


def _stays_below(name: str) -> bool:
    """Tells whether a name leads to a place below the directory that it is joined to."""
    return not (name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"))


def _empty(scratch: str, archive: str) -> None:
    """Makes scratch an empty directory. The directory itself stays: it may be a mount point."""
    try:
        os.makedirs(scratch, exist_ok=True)
        real = os.path.realpath(scratch)
        for precious in (os.path.realpath(archive), os.getcwd()):
            if os.path.commonpath((real, precious)) == real:
                raise UnzipError(f"it holds {precious}, so --scratch must name another directory")
        for entry in list(os.scandir(real)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
    except (OSError, UnzipError) as error:
        raise UnzipError(f"can't empty {scratch}: {error}") from error
