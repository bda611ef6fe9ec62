"""What clients do: every dialect, credential and refusal, clients that leave in each phase, and slow ones."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench.proxies.site import make_key
from bench.soak.client import Answer, Book, Connection, GoneError, Seen
from bench.soak.issuer import Issuer
from bench.soak.site import GUARDED, HEADER_TIMEOUT, LOAD_SECONDS
from bench.soak.tally import tokens

_GOOD = frozenset({200})
_MIB = 1024 * 1024


@dataclass
class Credentials:
    """What clients may send. ``turn`` is a key that lives for a while, ``retired`` one that was revoked.

    ``token`` is one of the key that the issuer signs with now, ``withdrawn`` one whose key is not published
    any more.
    """

    usual: str
    limited: str
    reader: str
    issuer: Issuer
    ssh: ed25519.Ed25519PrivateKey
    turn: str
    retired: str = ""
    token: str = ""
    withdrawn: str = ""
    expired: str = field(init=False)

    def __post_init__(self) -> None:
        self.token = self.issuer.token()
        self.expired = self.issuer.token(-600)


@dataclass
class Ask:
    """One request: ``path`` as it is sent, ``route`` as metrics call it."""

    kind: str
    method: str
    path: str
    route: str
    body: bytes = b""
    credential: str = ""
    expected: frozenset[int] = _GOOD
    fields: str = ""
    chunked: bool = False
    forwarded: bool = True
    revocable: bool = False

    def head(self, request_id: str) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: localhost", f"X-Request-Id: {request_id}"]
        if self.credential:
            lines.append(self.credential)
        if self.fields:
            lines.append(self.fields)
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
        elif self.body or self.method == "POST":
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode()


class Client:
    """One of many: it keeps its connection or takes a new one, and asks for this and that until the end."""

    def __init__(self, number: int, port: int, book: Book, credentials: Credentials, pause: float) -> None:
        self._rng = random.Random(number)
        self._port = port
        self._book = book
        self._credentials = credentials
        self._pause = pause
        self._connection: Connection | None = None

    async def run(self, over: asyncio.Event) -> None:
        rng = self._rng
        await asyncio.sleep(rng.random() * self._pause * 2)
        while not over.is_set():
            (kind,) = rng.choices(_KINDS, _WEIGHTS)
            try:
                await kind(self)
            except OSError:  # no connection was had, so nothing was asked
                self._connection = None
            await asyncio.sleep(rng.expovariate(1 / self._pause))
            if self._connection is not None and rng.random() < 0.15:
                self._drop()
        self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.leave(self._rng.choice(("close", "abort")))
            self._connection = None

    async def _open(self) -> Connection:
        if self._connection is None:
            self._connection = await Connection.open(self._port)
        return self._connection

    # Who asks.

    def _who(self) -> tuple[str, bool]:
        """A header line of somebody who may ask for inference; whether it may be revoked meanwhile."""
        known, way = self._credentials, self._rng.random()
        if way < 0.25:
            return f"Authorization: Bearer {known.token}", False
        if way < 0.40:
            return f"Authorization: Bearer {known.turn}", True
        if way < 0.65:
            return f"Authorization: Bearer {known.limited}", False
        if way < 0.75:
            return f"X-Api-Key: {known.usual}", False
        if way < 0.85:
            basic = base64.b64encode(f"user:{known.usual}".encode()).decode()
            return f"Authorization: Basic {basic}", False
        return f"Authorization: Bearer {known.usual}", False

    def _asked(self, kind: str, method: str, route: str, body: bytes = b"", path: str = "") -> Ask:
        """A request that is to be served; some have their key in the path, or are signed."""
        credential, revocable = self._who()
        path = path or route
        way = self._rng.random()
        if way < 0.05:
            return Ask(kind, method, f"/~{self._credentials.usual}{path}", route, body)
        if way < 0.10:
            stamp = f"{path}?ts={int(time.time())}"
            line = _signed(self._credentials.ssh, method, stamp)
            return Ask(kind, method, stamp, route, body, line)
        expected = frozenset({200, 401, 429}) if revocable else _GOOD
        return Ask(kind, method, path, route, body, credential, expected, revocable=revocable)

    # How it is asked.

    async def _ask(
        self, ask: Ask, *, stop: Callable[[Answer], bool] | None = None, pause: float = 0.0
    ) -> Answer | None:
        """Send a request, read its answer, record both; the answer where it came whole."""
        connection = await self._open()
        seen = self._begin(ask)
        answer = Answer()
        try:
            await self._send(connection, ask, seen)
            answer = await connection.answer(ask.method, stop, pause)
            seen.end = "complete" if answer.whole else "left"
        except OSError:
            with suppress(GoneError):  # it may have answered and closed before it had all of the body
                answer = await connection.answer(ask.method)
                seen.end = "complete"
        except GoneError as gone:
            answer = gone.answer
            seen.end = "torn" if answer.status else "nothing"
        self._finish(seen, answer)
        if not answer.whole or not answer.may_continue:
            if seen.end == "left":
                seen.left_in = "streaming"
                connection.leave(self._rng.choice(("close", "abort", "half")))
            elif answer.whole and self._rng.random() < 0.5:
                await connection.closed_by_proxy()
            else:
                connection.leave("abort")
            self._connection = None
        return answer if answer.whole else None

    def _begin(self, ask: Ask) -> Seen:
        method = ask.method if ask.method in ("GET", "HEAD", "POST", "DELETE") else "other"
        seen = self._book.begin(ask.kind, method, ask.route, ask.expected)
        seen.forwarded, seen.revocable = ask.forwarded, ask.revocable
        return seen

    async def _send(self, connection: Connection, ask: Ask, seen: Seen, most: int = 1 << 40) -> None:
        """Send head and body, of the body only ``most`` bytes."""
        head = ask.head(seen.request_id)
        if len(ask.body) <= 65_536 and not ask.chunked and most >= len(ask.body):
            seen.upload = len(ask.body)
            await connection.send(head + ask.body)
        else:
            await connection.send(head)
            for start in range(0, min(len(ask.body), most), 65_536):
                piece = ask.body[start : min(start + 65_536, most)]
                seen.upload += len(piece)
                await connection.send(b"%x\r\n%b\r\n" % (len(piece), piece) if ask.chunked else piece)
            if most < len(ask.body):
                return
            if ask.chunked:
                await connection.send(b"0\r\n\r\n")

    def _finish(self, seen: Seen, answer: Answer) -> None:
        seen.status, seen.got = answer.status, answer.got
        if answer.status and seen.end != "left":
            seen.tokens = tokens(seen.route, answer)
        if answer.status and seen.route == "other" and answer.fields.get("x-request-id"):
            seen.request_id = answer.fields["x-request-id"]  # the guards read no name of ours
        self._book.end(seen)

    # What is asked: what is served.

    async def small(self) -> None:
        method, route, path = self._rng.choice(_SMALL)
        if route == "/":
            await self._ask(Ask("small", method, path, route))
        else:
            await self._ask(self._asked("small", method, route, path=path))

    async def streamed(self) -> None:
        route, body = self._chat(stream=True)
        await self._ask(self._asked("stream", "POST", route, body))

    async def whole(self) -> None:
        route, body = self._chat(stream=False)
        await self._ask(self._asked("whole", "POST", route, body))

    async def breaking(self) -> None:
        route, body = self._chat(stream=True, model="error-midstream")
        ask = self._asked("breaking", "POST", route, body)
        ask.credential, ask.path = f"Authorization: Bearer {self._credentials.usual}", route
        ask.revocable, ask.expected = False, _GOOD
        await self._ask(ask)

    async def embedded(self) -> None:
        route = self._rng.choice(("/api/embed", "/api/embeddings", "/v1/embeddings"))
        name = "prompt" if route == "/api/embeddings" else "input"
        body = _json({"model": self._model(), name: _words(self._rng, 1, 30)})
        await self._ask(self._asked("embedding", "POST", route, body))

    async def managed(self) -> None:
        """Copy a model and delete the copy; another client may have been faster."""
        show, copy = {"model": self._model()}, {"source": "simulator", "destination": "simulator:copy"}
        await self._ask(self._asked("show", "POST", "/api/show", _json(show)))
        for kind, method, route, body in (
            ("copy", "POST", "/api/copy", copy),
            ("delete", "DELETE", "/api/delete", {"model": "simulator:copy"}),
        ):
            usual = f"Authorization: Bearer {self._credentials.usual}"
            await self._ask(
                Ask(kind, method, route, route, _json(body), usual, frozenset({200, 404}), forwarded=True)
            )

    async def uploaded(self) -> None:
        body = os.urandom(self._rng.choice((1000, 65_536, 300_000, _MIB)))
        ask = self._blob("upload", body)
        ask.chunked = self._rng.random() < 0.4
        await self._ask(ask)

    async def downloaded(self) -> None:
        await self._ask(self._large())

    async def read_slowly(self) -> None:
        self._drop()
        self._connection = await Connection.open(self._port, receive_buffer=16_384)
        await self._ask(self._large(), pause=0.02)
        self._drop()

    async def large_and_guarded(self) -> None:
        """So large that the process for short bodies looks at it."""
        await self._guarded(60_000)

    async def long_and_guarded(self) -> None:
        """So large that the process for long bodies looks at it."""
        await self._guarded(240_000)

    async def _guarded(self, words: int) -> None:
        options = {"num_predict": 2}
        body = _json({"model": "simulator", "options": options, "prompt": "word " * words})
        limited = f"Authorization: Bearer {self._credentials.limited}"
        await self._ask(Ask("large guarded", "POST", "/api/generate", "/api/generate", body, limited))

    # What is refused.

    async def refused(self) -> None:
        make = self._rng.choice(_REFUSALS)
        ask = make(self)
        ask.forwarded = False
        await self._ask(ask)

    async def broken_head(self) -> None:
        """Two hosts, or a head too large: refused before anybody knows whose request it is."""
        ask = Ask("broken head", "GET", "/api/version", "other", expected=frozenset({400}), forwarded=False)
        ask.fields = "Host: other"
        if self._rng.random() < 0.3:
            ask.fields, ask.expected = "X-Large: " + "x" * 40_000, frozenset({431})
        seen = self._book.begin(ask.kind, "other", "other", ask.expected)
        seen.forwarded = False
        connection = await Connection.open(self._port)
        answer = Answer()
        with suppress(OSError, GoneError):
            await connection.send(ask.head("ignored"))
            answer = await connection.answer("GET")
            seen.end = "complete"
        self._finish(seen, answer)
        connection.leave("abort")

    # Who leaves.

    async def leave_in_upload(self) -> None:
        """With half of a blob sent, or half of a body that is looked at."""
        if self._rng.random() < 0.5:
            ask, most = self._blob("leave in upload", os.urandom(_MIB)), 300_000
        else:
            route, body = self._chat(stream=True)
            limited = f"Authorization: Bearer {self._credentials.limited}"
            ask, most = Ask("leave in upload", "POST", route, route, body, limited), len(body) // 2
        await self._leave(ask, "upload", 0.3, most)

    async def leave_waiting(self) -> None:
        """Of a model that still loads."""
        body = {"model": "slow", "prompt": "Hello", "keep_alive": 0}
        usual = f"Authorization: Bearer {self._credentials.usual}"
        ask = Ask("leave waiting", "POST", "/api/generate", "/api/generate", _json(body), usual)
        await self._leave(ask, "waiting", LOAD_SECONDS / 6)

    async def leave_streaming(self) -> None:
        route, body = self._chat(stream=True, limit=50)
        ask = self._asked("leave streaming", "POST", route, body)
        pieces = self._rng.randint(1, 10)

        def stop(answer: Answer) -> bool:
            nonlocal pieces
            pieces -= 1
            return pieces <= 0

        await self._ask(ask, stop=stop)

    async def _leave(self, ask: Ask, phase: str, after: float, most: int = 1 << 40) -> None:
        connection = await self._open()
        self._connection = None
        seen = self._begin(ask)
        seen.end, seen.left_in = "left", phase
        with suppress(OSError):
            await self._send(connection, ask, seen, most)
        await asyncio.sleep(after)
        connection.leave(self._rng.choice(("close", "abort", "half")))
        self._book.end(seen)

    async def half_open(self) -> None:
        """A connection that never asks, or with half a head that is given up, or answered 408."""
        connection = await Connection.open(self._port)
        way = self._rng.randrange(3)
        if way == 0:
            await asyncio.sleep(self._rng.random() * HEADER_TIMEOUT)
            connection.leave(self._rng.choice(("close", "abort", "half")))
            return
        await connection.send(b"GET /api/version HTTP/1.1\r\nHost: loc")
        if way == 1:
            await asyncio.sleep(self._rng.random())
            connection.leave(self._rng.choice(("close", "abort", "half")))
            return
        seen = self._book.begin("half a head", "other", "other", frozenset({408}))
        seen.forwarded = False
        answer = Answer()
        with suppress(GoneError):
            answer = await connection.answer("GET")
            seen.end = "complete"
        self._finish(seen, answer)
        connection.leave("close")

    # Parts of requests.

    def _model(self) -> str:
        return self._rng.choice(("simulator", "simulator:latest", "smollm2:135m"))

    def _chat(self, *, stream: bool, model: str = "", limit: int = 0) -> tuple[str, bytes]:
        """A route and a body for it, of any dialect."""
        rng = self._rng
        route = rng.choice(_CHATS)
        limit = limit or rng.choice((3, 10, 30, 60))
        words = _words(rng, 1, 60)
        body: dict[str, object] = {"model": model or self._model(), "stream": stream}
        if route.startswith("/api/"):
            body["options"] = {"num_predict": limit}
        elif route == "/v1/responses":
            body["max_output_tokens"] = limit
        else:
            body["max_tokens"] = limit
        if route.endswith("completions") and stream and rng.random() < 0.5:
            body["stream_options"] = {"include_usage": True}
        if route in ("/api/generate", "/v1/completions"):
            body["prompt"] = words
        elif route == "/v1/responses":
            body["input"] = words
        else:
            body["messages"] = [{"role": "user", "content": words}]
        return route, _json(body)

    def _blob(self, kind: str, body: bytes) -> Ask:
        path = f"/api/blobs/sha256:{hashlib.sha256(body).hexdigest()}"
        usual = f"Authorization: Bearer {self._credentials.usual}"
        return Ask(kind, "POST", path, "/api/blobs/{digest}", body, usual, frozenset({201}))

    def _large(self) -> Ask:
        """An answer of a MiB: embeddings of many texts."""
        body = _json({"model": "simulator", "input": [f"text {n}" for n in range(225)]})
        return self._asked("download", "POST", "/api/embed", body)

    @property
    def known(self) -> Credentials:
        return self._credentials

    def choose(self, *of: str) -> str:
        return self._rng.choice(of)


_Kind = Callable[[Client], Awaitable[None]]
_KINDS_AND_WEIGHTS: list[tuple[_Kind, float]] = [
    (Client.small, 26),
    (Client.streamed, 30),
    (Client.whole, 8),
    (Client.breaking, 1),
    (Client.embedded, 6),
    (Client.managed, 1.5),
    (Client.uploaded, 1.5),
    (Client.downloaded, 0.5),
    (Client.read_slowly, 0.4),
    (Client.large_and_guarded, 0.4),
    (Client.long_and_guarded, 0.1),
    (Client.refused, 14),
    (Client.broken_head, 1.5),
    (Client.leave_in_upload, 1.5),
    (Client.leave_waiting, 2),
    (Client.leave_streaming, 4),
    (Client.half_open, 1),
]
_KINDS = [kind for kind, _ in _KINDS_AND_WEIGHTS]
_WEIGHTS = [weight for _, weight in _KINDS_AND_WEIGHTS]

_CHATS = (
    "/api/chat", "/api/generate", "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages",
)  # fmt: skip
_SMALL = (
    ("GET", "/", "/"),
    ("HEAD", "/", "/"),
    ("GET", "/api/version", "/api/version"),
    ("HEAD", "/api/version", "/api/version"),
    ("GET", "/api/tags", "/api/tags"),
    ("GET", "/api/ps", "/api/ps"),
    ("GET", "/api/status", "/api/status"),
    ("GET", "/v1/models", "/v1/models"),
    ("GET", "/v1/models/{model}", "/v1/models/simulator"),
)


def _refusal(
    status: int, method: str, path: str, route: str = "", body: bytes = b""
) -> Callable[[Callable[[Client], str]], Callable[[Client], Ask]]:
    """A request for which somebody gets this status; `route` is that of the metrics, the path without it."""

    def of(credential: Callable[[Client], str]) -> Callable[[Client], Ask]:
        def make(client: Client) -> Ask:
            expected = frozenset({status, 429} if status == 401 else {status})
            name = f"refused {status}"
            return Ask(name, method, path, route or path, body, credential(client), expected)

        return make

    return of


def _bearer(text: str) -> str:
    return f"Authorization: Bearer {text}"


def _chat_with(**members: object) -> bytes:
    messages = [{"role": "user", "content": "Hello"}]
    return _json({"model": "simulator", "messages": messages, **members})


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _words(rng: random.Random, least: int, most: int) -> str:
    return " ".join(["word"] * rng.randint(least, most))


def _retired(client: Client) -> str:
    return _bearer(client.known.retired or make_key())


def _withdrawn(client: Client) -> str:
    return _bearer(client.known.withdrawn or client.known.expired)


def _two(client: Client) -> str:
    return f"{_bearer(client.known.usual)}\r\nX-Api-Key: {client.known.limited}"


_REFUSALS: list[Callable[[Client], Ask]] = [
    _refusal(401, "GET", "/api/tags")(lambda client: ""),
    _refusal(401, "POST", "/v1/chat/completions", body=_chat_with())(lambda client: _bearer(make_key())),
    _refusal(401, "POST", "/v1/messages", body=_chat_with())(lambda client: "X-Api-Key: nonsense"),
    _refusal(401, "POST", "/api/chat", body=_chat_with())(lambda client: _bearer(client.known.expired)),
    _refusal(401, "GET", "/api/version")(_retired),
    _refusal(401, "GET", "/api/version")(_withdrawn),
    _refusal(400, "GET", "/api/version")(_two),
    _refusal(400, "GET", "/api//tags", "other")(lambda client: _bearer(client.known.usual)),
    _refusal(400, "POST", "/api/chat", body=b'{"model":"simulator"')(
        lambda client: _bearer(client.known.limited)
    ),
    _refusal(403, "POST", "/api/chat", body=_chat_with())(lambda client: _bearer(client.known.reader)),
    _refusal(403, "POST", "/api/chat", body=_chat_with(model="slow"))(
        lambda client: _bearer(client.known.limited)
    ),
    _refusal(403, "POST", "/v1/chat/completions", body=_chat_with(model="gpt-oss:cloud"))(
        lambda client: _bearer(client.known.usual)
    ),
    _refusal(404, "GET", "/api/nothing", "other")(lambda client: _bearer(client.known.usual)),
    _refusal(404, "POST", "/v1/nothing", "other", b"{}")(lambda client: _bearer(client.known.token)),
    _refusal(405, "PUT", "/api/chat", "other", _chat_with())(lambda client: _bearer(client.known.usual)),
    _refusal(413, "POST", "/api/chat", body=_chat_with(text=" " * (GUARDED + 300_000)))(
        lambda client: _bearer(client.known.limited)
    ),
]


def _signed(key: ed25519.Ed25519PrivateKey, method: str, target: str) -> str:
    """The header line of the stock ``ollama`` command."""
    signature = base64.b64encode(key.sign(f"{method},{target}".encode())).decode()
    return f"Authorization: {public_line(key).split(' ')[1]}:{signature}"


def public_line(key: ed25519.Ed25519PrivateKey) -> str:
    """The public key as OpenSSH writes it."""
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
