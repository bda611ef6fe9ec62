"""Writes docs/routes.md, errors.md, configuration.md and metrics.md from the tables in the code.

python docs/generate.py          write all
python docs/generate.py --check  exit 1 and name the pages that are not current
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

from configuration_page import configuration_page
from markdown import NOTICE, table
from metrics_page import metrics_page

from proxy.errors import COUNTED_AS_DENIED, ERRORS, REASONS, Dialect, error_body
from proxy.policy.routes import ROUTES, ModelPlace, Scope, Stream

HERE = Path(__file__).parent


class Advice(NamedTuple):
    """When an answer comes, and who does what about it."""

    when: str
    client: str
    operator: str


ADVICE = {
    "malformed_request": Advice(
        "The request breaks HTTP/1.1, can be read in two ways, or its path has more than one spelling.",
        "Do what the message says. Most often: no `//`, no `%`-escapes and no trailing `/` in the path.",
        "Nothing. Many of these from one address may be a scan.",
    ),
    "ambiguous_credentials": Advice(
        "Two credentials in one request, for example in `Authorization` and in `X-Api-Key`; the message "
        "names both places.",
        "Send one. Some SDKs take a second one from their environment, such as `ANTHROPIC_API_KEY`.",
        "Nothing.",
    ),
    "unreadable_body": Advice(
        "The body of a request that must be looked at is not one plain JSON object, or Ollama could read it "
        "in another way than the proxy does: a member twice, in capitals, something behind the object, a "
        "Content-Encoding, `model` and `name` that differ.",
        "Send what Ollama's API describes, once, in UTF-8 and uncompressed. SDKs do.",
        "Nothing. A client that meets this is worth a look: no ordinary one does.",
    ),
    "missing_credentials": Advice(
        "No credential, or an empty one.",
        "Send the key as `Authorization: Bearer KEY` or `X-Api-Key: KEY`.",
        "To open a route to everybody, name it in `auth.anonymous`.",
    ),
    "invalid_credentials": Advice(
        "The key, token, signature or certificate is unknown, revoked, wrong or out of its time. All look "
        "the same.",
        "Check that the whole key was pasted, 64 characters that begin with `oap_`. With the `ollama` "
        "command, check the clock.",
        "`ollama-auth-proxy keys show -` reads a key from stdin and says what is wrong with it.",
    ),
    "expired_credentials": Advice(
        "The key is right, but its time is over.",
        "Ask for a new key.",
        "`ollama-auth-proxy keys set ID --expires 90d` gives it more time.",
    ),
    "scope_denied": Advice(
        "The key lacks the scope that the route, or a `web_search` tool, needs; the message names it.",
        "Use a route that the key may use, or ask for a key with that scope.",
        "[routes.md](routes.md) says which scope opens what; `keys set ID --scope SCOPE` changes a key.",
    ),
    "model_denied": Advice(
        "The key may not use this model. For copy and create, both names count.",
        "Use a model that the key is for.",
        "`keys set ID --model PATTERN` says which ones it may.",
    ),
    "cloud_denied": Advice(
        "The model runs in the cloud, create names another Ollama, or the request acts as the server's "
        "account; and the cloud is closed or the key lacks the grant.",
        "Use a local model, or ask for the grant.",
        "`policy.cloud = true` opens the cloud, and `keys set ID --cloud` opens it to a key.",
    ),
    "option_denied": Advice(
        "The key has a cap, and the request asks for more, or for an option that such a key may not use; the "
        "message tells the limit.",
        "Stay within the limit. With a cap on the answer, say how long it may become.",
        "`keys set ID --max-context N` and the like change the caps; 0 removes one.",
    ),
    "unknown_route": Advice(
        "The path is none of Ollama's. Told only to callers who are known.",
        "Check the base URL: OpenAI clients need `/v1` at its end, others need none.",
        "Nothing. A new route of Ollama is closed until it stands in `proxy/policy/routes.py`.",
    ),
    "method_not_allowed": Advice(
        "The path exists, the method does not; `Allow` names those that do.",
        "Use one of the methods in `Allow`. `OPTIONS` comes from a browser that asks whether its page may.",
        "To let a web page in, name its origin in `cors.allow_origins`.",
    ),
    "body_too_large": Advice(
        "The body of a request that must be looked at is larger than `policy.max_guarded_body`, or takes too "
        "much time or memory to read.",
        "Send less: fewer or smaller images.",
        "Raise `policy.max_guarded_body`, and give the proxy memory for it: `config/config.toml` says how "
        "much.",
    ),
    "too_many_failures": Advice(
        "More than `auth.failures_per_minute` bad credentials came from this address; has `Retry-After`. A "
        "good credential is served all the while.",
        "Check the key, and wait.",
        "The access log names the address. Behind a balancer, set `listen.trusted_proxies`, or all clients "
        "share one.",
    ),
    "headers_too_large": Advice(
        "The head of the request is larger than `listen.max_header_bytes`.",
        "Send fewer or smaller header fields.",
        "Raise `listen.max_header_bytes` if the fields are meant.",
    ),
    "upstream_unreachable": Advice(
        "Ollama refused the connection, did not take it within `upstream.connect_timeout`, or closed it "
        "before its first byte.",
        "Try again in a moment.",
        "Check that Ollama runs at `upstream.url`; `/readyz` says what the proxy sees.",
    ),
    "upstream_protocol_error": Advice(
        "Ollama's answer broke off, or it was not HTTP.",
        "Try again.",
        "See Ollama's log: a runner may have crashed. Check that `upstream.url` is Ollama itself.",
    ),
    "internal_error": Advice(
        "A fault in the proxy.",
        "Try again, and tell the operator the `X-Request-Id`.",
        "The log has a traceback. It is a bug: please report it.",
    ),
    "queue_full": Advice(
        "More connections are open than `listen.max_connections`; or the bodies that are being looked at "
        "take four times `policy.max_guarded_body`, those of one caller twice that; has `Retry-After`.",
        "Try again after that time; reuse connections; send fewer large bodies at once.",
        "See `ollama_proxy_open_connections`. Raise `listen.max_connections` and the limit on open files, or "
        "`policy.max_guarded_body`.",
    ),
    "draining": Advice(
        "The proxy is shutting down, and this request was still in flight at the end; has `Retry-After`.",
        "Try again after that time.",
        "Raise `listen.drain_timeout` if answers take longer than that.",
    ),
}

FINER = {
    408: Advice(
        "The head was not complete within `listen.header_timeout`, or a body stopped for "
        "`listen.idle_timeout`.",
        "Send faster, over a better line.",
        "Raise the time-out for clients on very slow lines.",
    ),
    414: Advice(
        "The request target is longer than 8000 bytes.",
        "Put the data into the body.",
        "Nothing.",
    ),
    417: Advice(
        "`Expect` asks for something other than `100-continue`.",
        "Leave `Expect` away.",
        "Nothing.",
    ),
    501: Advice(
        "The body has a transfer coding other than `chunked`.",
        "Send it `chunked` or with `Content-Length`.",
        "Nothing.",
    ),
}
"""The statuses that stand in place of 400 for ``malformed_request``."""

STREAMS = {Stream.NONE: "", Stream.NDJSON: "NDJSON", Stream.SSE: "SSE"}
MODELS = {place: "" if place is ModelPlace.NONE else place.value for place in ModelPlace}
DIALECTS = {Dialect.NATIVE: "Ollama", Dialect.OPENAI: "OpenAI", Dialect.ANTHROPIC: "Anthropic"}


def routes_page() -> str:
    rows = [
        (
            f"`{route.method}`",
            f"`{route.path}`",
            f"`{route.scope.value}`",
            MODELS[route.model],
            DIALECTS[route.dialect],
            STREAMS[route.stream],
            "yes" if route.repeatable else "no",
        )
        for route in ROUTES
    ]
    scopes = [
        (f"`{scope.value}`", ", ".join(f"`{method} {path}`" for method, path in opened) or "nothing yet")
        for scope in Scope
        for opened in [[(route.method, route.path) for route in ROUTES if route.scope is scope]]
    ]
    return f"""{NOTICE}
# Routes

This is all that the proxy passes on. The table is `proxy/policy/routes.py`; labels of metrics and the field
`route` of the access log are its paths.

A request must match a method and a path exactly, as raw bytes. A path in another spelling is 400
(`malformed_request`). An unknown path is 404 (`unknown_route`). A known path with another method is 405
(`method_not_allowed`). The query string is passed on as it came, except that of callers who may use the
cloud, on routes with a model, and the `ts` of the `ollama` command. See [errors.md](errors.md).

A name in braces stands for one value:

- `{{digest}}` is `sha256:` or `sha256-` and 64 digits of lower-case hexadecimal.
- `{{model}}` and `{{key}}` are one path segment of plain characters, without escapes. In `{{model}}`, `%3A`
  is accepted for the colon. A model with a slash in its name cannot be asked for here, nor at Ollama itself.

## By scope

{table(("scope", "opens"), scopes)}
## The table

- **model**: where the name of the model stands. It is looked at for keys that are limited, or that may not
  use the cloud.
- **errors**: whose shape the errors have, see [errors.md](errors.md).
- **stream**: how the answer is delimited when it comes in pieces.
- **retried**: whether the proxy may send the request a second time, if a kept connection to Ollama turns out
  to be dead before the first byte of an answer.

{table(("method", "path", "scope", "model", "errors", "stream", "retried"), rows)}"""


def errors_page() -> str:
    codes = [
        (str(ERRORS[code].status), f"`{code}`", *ADVICE[code])
        for code in sorted(ERRORS, key=lambda code: ERRORS[code].status)
    ]
    finer = [(str(status), *advice) for status, advice in FINER.items()]
    types = [
        (f"`{code}`", f"`{row.openai_type}`", f"`{row.anthropic_type}`")
        for code, row in sorted(ERRORS.items(), key=lambda item: item[1].status)
    ]
    shapes = "\n".join(
        f"{DIALECTS[dialect]} ({where}):\n\n```json\n"
        + json.dumps(json.loads(error_body("scope_denied", "this key lacks the scope 'manage'", dialect)))
        + "\n```\n"
        for dialect, where in (
            (Dialect.NATIVE, "`/api/*`, `/`, and whatever is refused before its path is known"),
            (Dialect.OPENAI, "`/v1/*`"),
            (Dialect.ANTHROPIC, "`/v1/messages`"),
        )
    )
    counted = ", ".join(str(status) for status in sorted(COUNTED_AS_DENIED) if status in _statuses())
    return f"""{NOTICE}
# Errors

These answers are the proxy's own. Whatever Ollama answers, its errors too, passes through unchanged.
The table is `proxy/errors.py`. The metric `ollama_proxy_denied_total` counts those with status {counted}, by
code.

{table(("status", "code", "when", "what the client does", "what the operator does"), codes)}
The code `malformed_request` has another status where HTTP knows a finer one:

{table(("status", "when", "what the client does", "what the operator does"), finer)}
## Shape

Status and code are the same everywhere; the body has the shape that the clients of the route understand.
It is one line of JSON with `Content-Type: application/json`. A HEAD request gets no body.

{shapes}
Every answer carries `X-Request-Id`, the proxy's own and Ollama's alike; on `/v1/messages` also `request-id`.
A 401 carries `WWW-Authenticate: Bearer`, and `x-should-retry: false` for clients that would try again. The
message holds nothing that the client sent, but for the name of a model that it may not use.

{table(("code", "`type` for OpenAI", "`type` for Anthropic"), types)}
## After the first byte

The status cannot change any more, so the connection is cut and the body is visibly incomplete. On routes that
stream NDJSON one last line with `error` and `code` comes before the cut, because Ollama's own clients take a
torn stream for a complete one.

## In metrics and log only

499 is the status of a request whose client left before the end of its answer. Nobody receives it.
"""


def _statuses() -> set[int]:
    return {row.status for row in ERRORS.values()}


def pages() -> dict[Path, str]:
    """Every generated page and its text. Raises ValueError where what is written by hand does not fit."""
    if set(ADVICE) != set(ERRORS):
        raise ValueError(f"ADVICE does not fit proxy/errors.py: {sorted(set(ADVICE) ^ set(ERRORS))}")
    if _statuses() | set(FINER) != set(REASONS):
        raise ValueError("FINER does not name every status of proxy/errors.py that no code has")
    return {
        HERE / "routes.md": routes_page(),
        HERE / "errors.md": errors_page(),
        HERE / "configuration.md": configuration_page(),
        HERE / "metrics.md": metrics_page(),
    }


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    stale = 0
    for page, text in pages().items():
        if not arguments:
            page.write_text(text, "utf-8")
        elif not page.exists() or page.read_text("utf-8") != text:
            print(f"docs/{page.name} is not current: run 'python docs/generate.py'", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
