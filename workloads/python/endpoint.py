"""What the server can be asked to do: paths, their parameters, and how each outcome is answered.

What does the work is imported by the first request for it, so that a cold start does not pay for
it.
"""

from __future__ import annotations

from http_message import Request, text
from output import quoted
from parameter import Parameter, RequestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Callable

    from arguments import Files

    # Does what takes time, and sends the answer.
    Job = Callable[[Files, socket.socket], None]


def _fib(n: int, _: Files) -> str:
    from compute import fibonacci

    return str(fibonacci(n))


def _fft(n: int, _: Files) -> str:
    from compute import fourier_transform_time

    return f"{fourier_transform_time(n)} ns"


def _matrix(n: int, _: Files) -> str:
    from compute import matrix_square_time

    return f"{matrix_square_time(n)} ns"


def _alloc(mib: int, _: Files) -> str:
    from memory import touch

    return f"{touch(mib)} pages"


def _read(_: int, files: Files) -> str:
    from static_file import read

    return f"read {read(files.static_file)} bytes"


def _unzip(_: int, files: Files) -> str:
    from unzip import extract

    done = extract(files.static_file, files.scratch)
    return f"{done.files} files, {done.bytes} bytes"


# What each endpoint takes, and what it does to return what its answer says between brackets.
_ENDPOINTS = {
    "/fib": (Parameter("n", 10_000_000_000), _fib),
    "/fft": (Parameter("n", 1 << 24), _fft),
    "/matrix": (Parameter("n", 4096), _matrix),
    "/alloc": (Parameter("mib", 65_536, fallback=50), _alloc),
    "/read": (None, _read),
    "/unzip": (None, _unzip),
}


def prepare(request: Request) -> bytes | Job:
    """The answer to a request, or what will send it."""
    path = request.path
    if path not in _ENDPOINTS and path not in ("/hello", "/static"):
        there = "/hello /fib /fft /matrix /read /alloc /unzip /static"
        return text(404, f"{quoted(path)} is unknown: {there} are there", request)
    if request.method != "GET":
        return text(405, f"{request.method} is not allowed: use GET", request)
    if path == "/hello":
        return text(200, "Hello from sandscope", request)
    if path == "/static":
        return lambda files, stream: _send_static(request, files, stream)
    parameter, work = _ENDPOINTS[path]
    try:
        number = parameter.value(request.query) if parameter else 0
    except RequestError as error:
        return text(400, str(error), request)

    def job(files: Files, stream: socket.socket) -> None:
        try:
            answer = text(200, f"Done ({work(number, files)})", request)
        except Exception as error:
            answer = text(500, _reason(error), request)
        stream.sendall(answer)

    return job


def _send_static(request: Request, files: Files, stream: socket.socket) -> None:
    from static_file import StaticFileError, send

    try:
        send(stream, files.static_file, request.ends_connection)
    except StaticFileError as error:
        stream.sendall(text(500, str(error), request))


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    return str(error) or type(error).__name__
