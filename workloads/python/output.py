"""Lines on standard output and standard error.

A sandbox may have closed them, which is no reason to stop serving.
"""

from __future__ import annotations

import os


def write(line: str) -> None:
    _write(1, line)


def note(line: str) -> None:
    _write(2, line)


def quoted(text: str) -> str:
    """The text between double quotes, as the workloads in other languages write it."""
    escaped = text.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{escaped}"'


def _write(descriptor: int, line: str) -> None:
    rest = f"{line}\n".encode("utf-8", "backslashreplace")
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        pass
