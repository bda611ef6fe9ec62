"""One large body through the proxy, up (a blob) or down (a response), by plain blocking sockets."""

from __future__ import annotations

import sys
import time

from bench.load.target import Target, answer, parser

_BLOCK = bytes(1 << 20)
_BLOB = "/api/blobs/sha256:" + "0" * 64


def upload(target: Target, mebibytes: int) -> None:
    """POST a blob of that size; ConnectionError on anything but 201."""
    with target.connect() as sock:
        sock.sendall(target.head("POST", _BLOB, mebibytes * len(_BLOCK)))
        for _ in range(mebibytes):
            sock.sendall(_BLOCK)
        status = sock.recv(65_536)[:12]
        if status != b"HTTP/1.1 201":
            raise ConnectionError(f"the upload was answered by {status!r}")


def download(target: Target, mebibytes: int) -> None:
    """GET a response of that size; ConnectionError when it is not 200 or not whole."""
    size = mebibytes * len(_BLOCK)
    with target.connect() as sock:
        sock.sendall(target.head("GET", f"/api/tags?bytes={size}"))
        head = b""
        while b"\r\n\r\n" not in head:
            received = sock.recv(65_536)
            if not received:
                raise ConnectionError("the response broke off in its head")
            head += received
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"the request was answered by {head[:12]!r}")
        if f"\r\ncontent-length: {size}\r\n".encode() not in head.lower():
            raise ConnectionError("the response has lost its Content-Length")
        left = size - len(head.partition(b"\r\n\r\n")[2])
        buffer = bytearray(len(_BLOCK))
        while left:
            count = sock.recv_into(buffer)
            if not count:
                raise ConnectionError(f"the response broke off {left} bytes before its end")
            left -= count


def main() -> None:
    arguments = parser("One large body.")
    arguments.add_argument("direction", choices=["up", "down"])
    arguments.add_argument("mebibytes", type=int)
    given = arguments.parse_args()
    started = time.perf_counter()
    try:
        (upload if given.direction == "up" else download)(given.target, given.mebibytes)
    except ConnectionError as error:
        sys.exit(str(error))
    answer(seconds=time.perf_counter() - started)


if __name__ == "__main__":
    main()
