from __future__ import annotations

import unittest

from http_message import MalformedError, parse


class ParseTest(unittest.TestCase):
    def test_target_is_split_and_left_as_it_is(self) -> None:
        request = parse(b"GET /%68ello/../?n=1?&m HTTP/1.1\r\nHost: sandbox")
        self.assertEqual(
            (request.method, request.path, request.query), ("GET", "/%68ello/../", "n=1?&m")
        )
        self.assertEqual(parse(b"GET http://sandbox/fib?n=1 HTTP/1.1").path, "/fib")

    def test_connections_end_when_client_says_so_or_sends_body(self) -> None:
        for head, ends in (
            (b"GET / HTTP/1.1", False),
            (b"GET / HTTP/1.0", True),
            (b"GET / HTTP/1.1\r\nCONNECTION:  Close ", True),
            (b"GET / HTTP/1.1\r\nConnection: keep-alive", False),
            (b"POST / HTTP/1.1\r\nContent-Length: 0", False),
            (b"POST / HTTP/1.1\r\nContent-Length: 1", True),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked", True),
        ):
            self.assertEqual(parse(head).ends_connection, ends, head)

    def test_what_is_no_request_is_refused(self) -> None:
        for head in (
            b"",
            b"GET",
            b"GET /",
            b"GET  / HTTP/1.1",
            b"GET / HTTP/2.0",
            b"GET / HTTP/1.1\r\nno colon",
            b"GET / HTTP/1.1\r\n folded: line",
            b"\x16\x03\x01\x02\x00",
        ):
            with self.assertRaises(MalformedError, msg=head):
                parse(head)


if __name__ == "__main__":
    unittest.main()
