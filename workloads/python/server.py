"""The socket: listening, accepting, and what becomes of connections.

One thread waits for all connections and answers what needs no time. For work, a connection goes
over to a thread of its own and comes back afterwards. There are no time limits: their timers would
wake a server that is measured for how often it wakes up.
"""

from __future__ import annotations

import os
import select
import socket
from _thread import start_new_thread

from endpoint import prepare
from http_message import MalformedError, parse, text
from output import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from arguments import Files
    from endpoint import Job

# Connections that may wait to be accepted; the kernel lowers it to its `net.core.somaxconn`.
BACKLOG = 4096

# Largest head of a request: request line and headers.
MAX_HEAD_BYTES = 16 * 1024

# Bytes that are received at a time.
CHUNK_BYTES = 64 * 1024

# Pause after a connection could not be accepted, which is when there are too many open files.
ACCEPT_PAUSE_SECONDS = 0.01


def listen(port: int) -> socket.socket:
    """Listens on all IPv4 addresses."""
    _raise_limit_of_open_files()
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", port))
    listener.listen(BACKLOG)
    return listener


def serve(listener: socket.socket, files: Files) -> None:
    """Serves until the process ends, which an error here makes it do as well."""
    try:
        _Server(listener, files).run()
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


class _Connection:
    """A client's connection, and the bytes that are on their way."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.received = bytearray()
        self.to_send = bytearray()
        # Whether what is sent next is the last. What the client still sends is thrown away until it
        # hangs up: closing before that could destroy the last answer on its way.
        self.ends = False

    def next_job(self) -> Job | None:
        """Answers the requests that were received up to the first that takes time."""
        while not self.ends:
            length = self.received.find(b"\r\n\r\n")
            if (len(self.received) if length < 0 else length) > MAX_HEAD_BYTES:
                self.end_with(431, f"the head of the request is larger than {MAX_HEAD_BYTES} bytes")
                break
            if length < 0:
                break
            head = bytes(self.received[:length])
            del self.received[: length + 4]
            try:
                # Some clients send an empty line after a body.
                request = parse(head.lstrip(b"\r\n"))
            except MalformedError as error:
                self.end_with(400, str(error))
                break
            self.ends = request.ends_connection
            answer = prepare(request)
            if callable(answer):
                return answer
            self.to_send += answer
        return None

    def end_with(self, status: int, reason: str) -> None:
        self.to_send += text(status, reason)
        self.ends = True

    def send_what_fits(self) -> None:
        if self.to_send:
            try:
                del self.to_send[: self.stream.send(self.to_send, socket.MSG_DONTWAIT)]
            except BlockingIOError:
                pass

    def send_all(self) -> None:
        self.stream.sendall(self.to_send)
        self.to_send.clear()


class _Server:
    def __init__(self, listener: socket.socket, files: Files) -> None:
        self._listener = listener
        self._files = files
        self._epoll = select.epoll()
        # Those that the epoll watches, and those that are being worked for.
        self._connections: dict[int, _Connection] = {}
        # Seconds until connections are accepted again.
        self._pause: float | None = None
        self._told = False

    def run(self) -> None:
        accepts = self._listener.fileno()
        # Connections that their client has given up would otherwise make `accept` wait for the
        # next.
        self._listener.setblocking(False)
        self._epoll.register(accepts, select.EPOLLIN)
        while True:
            events = self._epoll.poll(self._pause)
            if self._pause is not None:
                self._pause = None
                self._epoll.modify(accepts, select.EPOLLIN)
            for descriptor, _ in events:
                if descriptor == accepts:
                    self._accept()
                else:
                    self._receive(self._connections[descriptor])

    def _accept(self) -> None:
        try:
            stream, _ = self._listener.accept()
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            if not self._told:
                note(f"connections have to wait (said once): {error}")
                self._told = True
            self._pause = ACCEPT_PAUSE_SECONDS
            self._epoll.modify(self._listener.fileno(), 0)
            return
        self._connections[stream.fileno()] = _Connection(stream)
        self._epoll.register(stream.fileno(), select.EPOLLIN)

    def _receive(self, connection: _Connection) -> None:
        """Takes what has arrived, and answers it or has it answered."""
        try:
            received = connection.stream.recv(CHUNK_BYTES, socket.MSG_DONTWAIT)
            if not received:
                self._close(connection)
                return
            if connection.ends:
                return
            connection.received += received
            job = connection.next_job()
            connection.send_what_fits()
            if job is not None or connection.to_send:
                self._hand_over(connection, job)
            elif connection.ends:
                connection.stream.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            # That a connection breaks is the client's affair.
            self._close(connection)

    def _hand_over(self, connection: _Connection, job: Job | None) -> None:
        """Has a thread do what takes time; until then the connection is its own."""
        self._epoll.unregister(connection.stream.fileno())
        try:
            start_new_thread(self._work, (connection, job))
        except RuntimeError as error:
            connection.end_with(500, f"the work can't be done: {error}")
            connection.send_what_fits()
            self._take_back(connection)

    def _work(self, connection: _Connection, job: Job | None) -> None:
        try:
            while job is not None or connection.to_send:
                connection.send_all()
                if job is not None:
                    job(self._files, connection.stream)
                job = connection.next_job()
            self._take_back(connection)
        except OSError:
            self._close(connection)

    def _take_back(self, connection: _Connection) -> None:
        if connection.ends:
            connection.stream.shutdown(socket.SHUT_WR)
        self._epoll.register(connection.stream.fileno(), select.EPOLLIN)

    def _close(self, connection: _Connection) -> None:
        # In this order, since the next connection may get the same descriptor.
        del self._connections[connection.stream.fileno()]
        connection.stream.close()


def _raise_limit_of_open_files() -> None:
    """The usual soft limit of 1024 would leave no room for 1024 connections. When the hard limit is
    no higher, connections beyond it wait in the listen queue."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        note(f"the limit of open files stays as it is: {error}")
