"""The command line.

Parsed by hand: `argparse` would take longer to import than the rest of the program.
"""

from __future__ import annotations

import socket

from output import quoted

USAGE = """\
usage: python3 main.py CALLBACK-URL|ignore [--port 8080] [--static-file PATH] [--scratch DIRECTORY]

  CALLBACK-URL          gets one GET request as soon as the server listens, such as http://10.0.0.1:3000/ready/7;
                        the word "ignore" stands for no callback
  --port N              TCP port to listen on, 0 for any free one [default: 8080]
  --static-file PATH    file that /static and /read deliver and /unzip extracts [default: static_file]
  --scratch DIRECTORY   directory that /unzip empties and extracts to [default: unzipped]"""  # noqa: E501


class UsageError(Exception):
    """A command line that can't be followed."""


class Files:
    """What the file endpoints work on."""

    def __init__(self) -> None:
        self.static_file = "static_file"
        self.scratch = "unzipped"


class Callback:
    """Where to report readiness."""

    def __init__(self, text: str, host: str, port: int, authority: str, target: str) -> None:
        self.text = text
        self.host = host
        self.port = port
        self.authority = authority
        # Path and query.
        self.target = target


class Arguments:
    """How to serve."""

    def __init__(self) -> None:
        self.callback: Callback | None = None
        # 0 lets the kernel choose.
        self.port = 8080
        self.files = Files()


def parse(arguments: list[str]) -> Arguments | None:
    """Parses what follows the script's name; None asks for the usage.

    Flags may stand on both sides of the callback.
    """
    parsed = Arguments()
    callback = None
    rest = iter(arguments)
    for argument in rest:
        flag, attached, text = argument.partition("=")
        if flag in ("--port", "--static-file", "--scratch"):
            value = text if attached else next(rest, None)
            if value is None:
                raise UsageError(f"{flag} needs a value")
            if flag == "--port":
                parsed.port = _port(value)
            elif value == "":
                raise UsageError(f"{flag} needs a path that is not empty")
            elif flag == "--static-file":
                parsed.files.static_file = value
            else:
                parsed.files.scratch = value
        elif argument in ("--help", "-h"):
            return None
        elif argument.startswith("-") or callback is not None:
            raise UsageError(f"unexpected argument {quoted(argument)}")
        else:
            callback = argument
    if callback is None:
        raise UsageError('the callback URL is missing; use "ignore" for none')
    if callback != "ignore":
        parsed.callback = _callback(callback)
    return parsed


def _port(text: str) -> int:
    if not _is_port(text):
        raise UsageError(f"--port is {quoted(text)}: it must be a whole number from 0 to 65535")
    return int(text)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535


def _callback(text: str) -> Callback:
    """Takes http URLs whose host is an IPv4 address, since a sandbox has no resolver."""

    def wrong(reason: str) -> UsageError:
        return UsageError(f"the callback URL {quoted(text)} can't be used: {reason}")

    scheme = "http://"
    if not text.startswith(scheme) or not all("!" <= character <= "~" for character in text):
        raise wrong("it must start with http:// and hold nothing but printable ASCII characters")
    rest = text[len(scheme) :].partition("#")[0]
    length = min((rest.index(mark) for mark in "/?" if mark in rest), default=len(rest))
    authority, target = rest[:length], rest[length:]
    host, colon, port = authority.partition(":")
    try:
        socket.inet_pton(socket.AF_INET, host)
        if colon and not _is_port(port):
            raise ValueError(port)
    except (OSError, ValueError):
        reason = "its host must be an IPv4 address, with or without a port, such as 10.0.0.1:3000"
        raise wrong(reason) from None
    if not target.startswith("/"):
        target = f"/{target}"
    return Callback(text, host, int(port or 80), authority, target)
