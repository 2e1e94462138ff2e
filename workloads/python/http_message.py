"""What a request asks for, taken from its head, and the answer to it as bytes.

`http.server` would take longer to import than the rest of the program, and its server wakes up
twice a second.
"""

from __future__ import annotations

import time

_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
}

TEXT = "text/plain; charset=utf-8"


class MalformedError(Exception):
    """What was received is no request."""


class Request:
    """The head of a request."""

    def __init__(self, method: str, target: str, ends_connection: bool) -> None:
        self.method = method
        self.path, _, self.query = target.partition("?")
        # Whether the answer is the last on its connection.
        self.ends_connection = ends_connection


def parse(head: bytes) -> Request:
    """Parses what comes before the empty line."""
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[0] or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise MalformedError("the request line is not that of HTTP/1.1")
    method, target, version = parts
    ends_connection = version == "HTTP/1.0"
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not name or name != name.strip():
            raise MalformedError("a header is broken")
        value = value.strip().lower()
        if name == "connection":
            ends_connection = ends_connection or "close" in value
        # No endpoint reads a body; hanging up is how to skip one of any length.
        elif name == "transfer-encoding" or (name == "content-length" and value != "0"):
            ends_connection = True
    # A proxy's form of the target.
    if target.startswith("http://"):
        target = "/" + target[len("http://") :].partition("/")[2]
    return Request(method, target, ends_connection)


def head(
    status: int, content_type: str, length: int, ends_connection: bool, extra: str = ""
) -> bytes:
    """The head of an answer. `extra` are further lines."""
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
    connection = "Connection: close\r\n" if ends_connection else ""
    return (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {length}\r\nDate: {date}\r\n{connection}{extra}\r\n"
    ).encode("ascii")


def text(status: int, line: str, request: Request | None = None) -> bytes:
    """A whole answer with one line as body; without the request, one that ends the connection."""
    body = f"{line}\n".encode("utf-8", "backslashreplace")
    ends_connection = request is None or request.ends_connection
    extra = "Allow: GET\r\n" if status == 405 else ""
    start = head(status, TEXT, len(body), ends_connection, extra)
    if request is not None and request.method == "HEAD":
        return start
    return start + body
