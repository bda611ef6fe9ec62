"""What one request has cost is counted once, under bounded names, and never gets in the way."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.identity.identity import ANONYMOUS, Identity
from proxy.identity.limits import limits_from
from proxy.observe.ledger import Ledger
from proxy.observe.meter import OPERATIONS, Cost, Meter
from proxy.observe.metrics import Metrics
from proxy.observe.models import Models
from proxy.policy.routes import ROUTES, Route, match
from proxy.upstream.relay import Relay

from .answers import RECORDED
from .test_usage import EXPECTED

NDJSON, SSE, JSON = b"application/x-ndjson", b"text/event-stream", b"application/json"
KEY = Identity("api_key", "0123456789", "laptop", frozenset({"inference"}), None, False, limits_from({}))
JWT = Identity("jwt", None, "alice@example.com", frozenset({"inference"}), None, False, limits_from({}))
LINE = b'{"model":"good","message":{"content":"a"},"done":false}\n'
END = b'{"model":"good","done":true,"prompt_eval_count":4,"eval_count":2,"load_duration":500000000}\n'


def route(path: str) -> Route:
    found = match("POST", path.encode())
    assert found is not None
    return found


class Desk:
    """A meter, and what stands behind it."""

    def __init__(self, *models: str) -> None:
        self.metrics, self.ledger, self.models = Metrics("1"), Ledger(), Models()
        self.models.replace(models or ("good", "smollm2:135m"))
        self.meter = Meter(self.metrics, self.ledger, self.models)

    def finished(
        self,
        path: str,
        pieces: Sequence[bytes],
        content_type: bytes,
        *,
        status: int = 200,
        failure: str = "",
        left_in: str = "",
        outcome: str = "ok",
        who: Identity = KEY,
        asked: str | None = None,
    ) -> Cost:
        """Meter an answer that began to come at 102 s and ended at 110 s, of a request of 100 s."""
        relay = Relay.__new__(Relay)  # without a connection on either side
        relay._metered, relay._chunked, relay._out = route(path).metered, False, []
        relay._last = relay._previous = relay.first = b""
        relay.forwarded_at = 100.5
        relay.lines = relay.sent = 0
        relay.status, relay.content_type, relay.failure, relay.left_in = (
            status,
            content_type,
            failure,
            left_in,
        )
        relay.first_byte_at, relay.forwarded_at, relay.cut_off = 0.0, 101.0, False
        for piece in pieces:
            relay.response_body(piece)
        if pieces:
            relay.first_byte_at = 102.0
        return self.meter.finished(route(path), relay, who, asked, outcome, 100.0, 110.0, b"id")

    def row(self) -> tuple[str, str | None, int, int, int]:
        """The one row of the ledger: whose, of which model, requests, tokens read and written."""
        batch = self.ledger.batch()
        assert batch is not None
        (row,) = batch.rows
        return row.key_name, row.model, row.requests, row.input_tokens, row.output_tokens


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_answer_is_counted_once_everywhere(name: str) -> None:
    one, desk = RECORDED[name], Desk()
    cost = desk.finished(one.route.path, [one.body], one.content_type)
    read, written, _ = EXPECTED[name]
    assert cost[1:] == (read, written, False)
    label = cost.model
    assert label in ("smollm2:135m", "other")
    assert desk.row() == ("laptop", label, 1, read or 0, written or 0)
    told = {("laptop", label): [read or 0, written or 0]} if (read, written) != (None, None) else {}
    assert desk.metrics.tokens == told
    ((operation, model),) = desk.metrics.models
    assert (operation, model) == (OPERATIONS[one.route.path], label)
    counted = desk.metrics.models[operation, model]
    assert {error: sum(h.counts) for error, h in counted.durations.items()} == {"": 1}
    assert sum(counted.first_token.counts) == one.streamed
    assert (counted.input.total, counted.output.total) == (
        read or 0,
        0 if operation == "embeddings" else written or 0,
    )


@pytest.mark.parametrize("name", [name for name, one in RECORDED.items() if len(one.body) < 4000])
def test_pieces_of_one_byte_cost_the_same(name: str) -> None:
    one = RECORDED[name]
    whole = Desk().finished(one.route.path, [one.body], one.content_type)
    pieces = [one.body[at : at + 1] for at in range(len(one.body))]
    assert Desk().finished(one.route.path, pieces, one.content_type) == whole


def test_every_row_that_has_usage_has_an_operation_or_is_no_generation() -> None:
    metered = {row.path for row in ROUTES if row.metered}
    assert set(OPERATIONS) == metered - {"/v1/audio/transcriptions"}


@pytest.mark.parametrize(
    ("who", "label"), [(KEY, "laptop"), (JWT, "jwt"), (ANONYMOUS, "anonymous")], ids=["key", "jwt", "none"]
)
def test_only_names_that_the_operator_gave_are_labels(who: Identity, label: str) -> None:
    desk = Desk()
    desk.finished("/api/chat", [LINE, END], NDJSON, who=who)
    assert list(desk.metrics.tokens) == [(label, "good:latest")]
    assert desk.row()[0] == label


@pytest.mark.parametrize(
    ("asked", "answered", "model"),
    [
        ("good", b"bad", "good:latest"),
        (None, b"good", "good:latest"),
        (None, b"unlisted", "other"),
        ("unlisted", b"good", "other"),
    ],
)
def test_the_model_is_the_one_asked_for_or_else_the_one_that_answers(
    asked: str | None, answered: bytes, model: str
) -> None:
    line = END.replace(b"good", answered)
    assert Desk().finished("/api/chat", [line], NDJSON, asked=asked).model == model


TORN: dict[str, tuple[dict[str, str], str]] = {
    "ollama": ({"failure": "truncated", "outcome": "upstream_failed"}, "truncated"),
    "reset": ({"failure": "reset", "outcome": "upstream_failed"}, "reset"),
    "client": ({"left_in": "streaming", "outcome": "client_closed"}, "client_closed"),
    "revoked": ({"outcome": "aborted"}, "aborted"),
}


@pytest.mark.parametrize(("how", "error"), TORN.values(), ids=TORN)
def test_of_a_torn_stream_the_lines_that_came_are_counted(how: dict[str, str], error: str) -> None:
    desk = Desk()
    cost = desk.finished("/api/chat", [LINE] * 7, NDJSON, **how)  # type: ignore[arg-type]
    assert cost == Cost("good:latest", None, 7, broken=False)
    counted = desk.metrics.models["chat", "good:latest"]
    assert list(counted.durations) == [error]


@pytest.mark.parametrize(("how", "error"), [TORN["ollama"], TORN["client"]], ids=["ollama", "client"])
def test_of_a_torn_document_nothing_is_known(how: dict[str, str], error: str) -> None:
    desk = Desk()
    cost = desk.finished("/api/chat", [END], JSON, **how)  # type: ignore[arg-type]
    assert cost == Cost("other")
    assert not desk.metrics.tokens
    assert list(desk.metrics.models["chat", "other"].durations) == [error]


EVENT = b'data: {"id":"1","model":"good","choices":[{"delta":{"content":"a"}}]}\n\n'
ENDS: dict[str, tuple[str, bytes, bytes, bool]] = {
    "native": ("/api/chat", NDJSON, LINE + END, False),
    "native-without-end": ("/api/chat", NDJSON, LINE, False),
    "native-error": ("/api/chat", NDJSON, LINE + b'{"error":"gone"}\n', True),
    "native-error-alone": ("/api/chat", NDJSON, b'{"error":"gone"}\n', True),
    "native-error-without-line-end": ("/api/generate", NDJSON, LINE + b'{"error":"gone"}', True),
    "native-text": ("/api/chat", NDJSON, LINE.replace(b'"a"', b'"{\\"error\\":"') + END, False),
    "openai": ("/v1/chat/completions", SSE, EVENT + b"data: [DONE]\n\n", False),
    "openai-silent": ("/v1/chat/completions", SSE, EVENT, True),
    "completions-silent": ("/v1/completions", SSE, EVENT, True),
    "anthropic-silent": ("/v1/messages", SSE, EVENT, True),
    "responses": ("/v1/responses", SSE, EVENT, False),  # its failures are told by an event of their own
    "one-document": ("/v1/chat/completions", JSON, b'{"error":"x"}', False),
}


@pytest.mark.parametrize(("path", "content_type", "body", "broken"), ENDS.values(), ids=ENDS)
def test_a_clean_end_that_is_none_is_a_failure_of_ollama(
    path: str, content_type: bytes, body: bytes, broken: bool
) -> None:
    desk = Desk()
    assert desk.finished(path, [body], content_type).broken is broken
    errors = {error for counted in desk.metrics.models.values() for error in counted.durations}
    assert errors == {"truncated" if broken else ""}
    # The same of a stream that somebody cut is no second failure.
    assert not Desk().finished(path, [body], content_type, outcome="aborted").broken


def test_a_refusal_of_ollama_is_told_by_its_status() -> None:
    desk = Desk()
    cost = desk.finished("/api/chat", [b'{"error":"model not found"}'], JSON, status=404, asked="good")
    assert cost == Cost("good:latest")
    assert list(desk.metrics.models["chat", "good:latest"].durations) == ["404"]
    assert desk.row() == ("laptop", "good:latest", 1, 0, 0)


def test_requests_of_no_model_are_in_the_ledger_alone() -> None:
    desk, found = Desk(), match("GET", b"/api/version")
    assert found is not None
    relay = Relay.__new__(Relay)
    relay.status, relay.failure, relay.left_in, relay.sent, relay.forwarded_at = 200, "", "", 20, 1.0
    cost = desk.meter.finished(found, relay, KEY, None, "ok", 1.0, 2.0, b"id")
    assert cost == Cost(None)
    assert (desk.metrics.models, desk.metrics.tokens) == ({}, {})
    assert desk.row() == ("laptop", None, 1, 0, 0)


def test_times_are_taken_from_the_stream_or_else_from_what_ollama_says() -> None:
    desk = Desk()
    desk.finished("/api/chat", [LINE * 4, END.replace(b'"eval_count":2', b'"eval_count":5')], NDJSON)
    counted = desk.metrics.models["chat", "good:latest"]
    assert counted.first_token.total == 2.0
    assert counted.per_token.total == 8.0 / 4
    assert desk.metrics.model_loads["good:latest"].total == 0.5
    desk = Desk()
    whole = END.replace(b'"eval_count":2', b'"eval_count":5,"eval_duration":2000000000')
    desk.finished("/api/chat", [whole], JSON)
    counted = desk.metrics.models["chat", "good:latest"]
    assert sum(counted.first_token.counts) == 0, "when the first token was made nobody saw"
    assert counted.per_token.total == 2.0 / 4


@pytest.mark.parametrize("content_type", [NDJSON, SSE])
def test_an_answer_without_a_byte_has_no_time_to_the_first(content_type: bytes) -> None:
    desk = Desk()
    cost = desk.finished("/api/chat", [], content_type, failure="truncated", outcome="upstream_failed")
    assert cost == Cost("other")
    (counted,) = desk.metrics.models.values()
    assert (sum(counted.first_token.counts), sum(counted.per_token.counts)) == (0, 0)


@settings(max_examples=300)
@given(
    st.sampled_from(sorted({row.path for row in ROUTES if row.metered})),
    st.sampled_from([NDJSON, SSE, JSON, b"", b"text/plain", b"\xff"]),
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from([LINE, END, EVENT, b"data: [DONE]\n\n", b"\n", b"[" * 3000]),
        ),
        max_size=12,
    ),
    st.sampled_from(["", "reset"]),
    st.sampled_from(["", "streaming"]),
)
def test_whatever_comes_it_never_raises_and_names_stay_bounded(
    path: str, content_type: bytes, pieces: list[bytes], failure: str, left_in: str
) -> None:
    desk = Desk()
    outcome = "upstream_failed" if failure else "client_closed" if left_in else "ok"
    pieces = [piece for piece in pieces if piece]
    cost = desk.finished(path, pieces, content_type, failure=failure, left_in=left_in, outcome=outcome)
    assert cost.model in ("good:latest", "other")
    assert (cost.input_tokens or 0) >= 0
    assert (cost.output_tokens or 0) >= 0
    assert desk.row()[2] == 1
    for counted in desk.metrics.models.values():
        for histogram in (counted.first_token, counted.per_token, *counted.durations.values()):
            assert histogram.total >= 0
