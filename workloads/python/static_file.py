"""The static file: read whole, or streamed as the body of a response."""

from __future__ import annotations

import os
import stat

from http_message import head

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    import socket


class StaticFileError(Exception):
    """A file that can't be had."""


def read(path: str) -> int:
    """Reads the whole file into memory and returns its number of bytes."""
    with open_regular(path) as file:
        return len(file.read())


def send(stream: socket.socket, path: str, ends_connection: bool) -> None:
    """Sends the file, at the length that it has now, as body of a response.

    A StaticFileError is raised only if nothing was sent; an OSError, if the connection is of no
    more use.
    """
    with open_regular(path) as file:
        length = os.fstat(file.fileno()).st_size
        stream.sendall(head(200, "application/octet-stream", length, ends_connection))
        sent = 0
        while sent < length:
            part = os.sendfile(stream.fileno(), file.fileno(), sent, length - sent)
            if part == 0:
                raise OSError("the file became shorter")
            sent += part


def open_regular(path: str) -> io.FileIO:
    """Opens a regular file. Anything else might block or never end."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise StaticFileError(f"can't read {path}: it is not a regular file")
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise StaticFileError(f"can't read the static file: {error}") from error
