"""Tells the host that the server is ready: one GET request, sent once, after the socket listens."""

from __future__ import annotations

import socket
import time

from arguments import Callback
from output import note

# Longest time from the first packet of the connection to the head of the response.
PATIENCE_SECONDS = 5

# Longest first line of an answer that is waited for.
MAX_STATUS_BYTES = 4096


class CallbackError(Exception):
    """An answer that does not say success, or none."""


def send_or_tell(callback: Callback, since_main: int) -> None:
    """Sends one request, and no second one whatever the answer is; a failure becomes a line on
    standard error.

    `since_main` are the nanoseconds of monotonic time from the start of `main` to the moment just
    after `listen`.
    """
    try:
        _send(callback, since_main)
    except (OSError, CallbackError) as error:
        note(f"the callback to {callback.text} failed: {error}")


def _send(callback: Callback, since_main: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    late = CallbackError(f"no answer within {PATIENCE_SECONDS} s")
    # By hand, since `http.client` would take longer to import than the rest of the program.
    request = (
        f"GET {callback.target} HTTP/1.1\r\nHost: {callback.authority}\r\n"
        f"sandscope-since-main-ns: {since_main}\r\nConnection: close\r\n\r\n"
    )
    answer = b""
    try:
        with socket.create_connection((callback.host, callback.port), PATIENCE_SECONDS) as stream:
            stream.sendall(request.encode("ascii"))
            while b"\r\n" not in answer and len(answer) <= MAX_STATUS_BYTES:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise late
                stream.settimeout(left)
                received = stream.recv(MAX_STATUS_BYTES)
                if not received:
                    raise CallbackError("the connection was closed without an answer")
                answer += received
    except socket.timeout:
        raise late from None
    version, _, status = answer.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    if not version.startswith("HTTP/1."):
        raise CallbackError("the answer is not HTTP")
    if not status.startswith("2"):
        raise CallbackError(f"the answer is {status}")
