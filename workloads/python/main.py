"""The workload that runs inside a sandbox: a small HTTP server that does one kind of work per
endpoint and reports by a callback that it is ready. The contract that it shares with the workloads
in other languages is in workloads/README.md.

It needs nothing but the standard library. What is not needed to serve the first request is imported
when it is, and the rest inside of `main`, whose start is what the callback's time counts from.
"""

from __future__ import annotations

import sys
import time

EXIT_FAILURE = 1
EXIT_USAGE = 2


def main() -> None:
    start = time.monotonic_ns()
    # Blocked before there are other threads, which inherit it: this thread alone takes them, and is
    # there for nothing else. As process 1 of a container, too, they would otherwise be ignored.
    import signal

    ending = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)

    import arguments
    from output import note, write

    try:
        parsed = arguments.parse(sys.argv[1:])
    except arguments.UsageError as error:
        note(f"{error}\n{arguments.USAGE}")
        sys.exit(EXIT_USAGE)
    if parsed is None:
        write(arguments.USAGE)
        return

    import server

    try:
        listener = server.listen(parsed.port)
    except OSError as error:
        reason = f"can't listen on 0.0.0.0:{parsed.port} (--port takes another port): {error}"
        note(f"error: {reason}")
        sys.exit(EXIT_FAILURE)
    since_main = time.monotonic_ns() - start
    write("listening on {}:{}".format(*listener.getsockname()))

    import os
    from _thread import start_new_thread

    start_new_thread(server.serve, (listener, parsed.files))
    if parsed.callback is not None:
        import callback

        start_new_thread(callback.send_or_tell, (parsed.callback, since_main))
    signal.sigwait(ending)
    # Not `sys.exit`, which would tidy up first.
    os._exit(0)


if __name__ == "__main__":
    main()
