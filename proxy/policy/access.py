"""Whether a caller may have what a request asks for. Pure: deny unless granted.

One decision in two steps, because nothing of a body is read for a caller who may not use the route:
`authorise_route` before it, `authorise_request` with the facts of the body. `guard` says whether there has to
be a second step.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from proxy.errors import ProxyError
from proxy.identity.identity import ANONYMOUS, Identity
from proxy.identity.limits import Limits
from proxy.policy import routes
from proxy.policy.body import OUTPUT_LIMITS, Facts
from proxy.policy.durations import keep_alive_seconds
from proxy.policy.model_names import ModelName, matcher
from proxy.policy.routes import ModelPlace, Route, Scope


class Policy(NamedTuple):
    """What the operator decided for everybody. ``cloud`` opens the cloud to those who have the grant."""

    cloud: bool = False


class Guard(IntEnum):
    """How closely a request has to be looked at."""

    NONE = 0
    """Nothing that it could ask for is forbidden: it streams."""
    SCAN = 1
    """Only the cloud is: a body without a word of it goes on without being parsed."""
    PARSE = 2
    """Its model or an option could be forbidden: it is parsed."""


# Which member says how long an answer may become; on all other routes there is none.
_OUTPUT_LIMIT = {
    "/api/generate": "num_predict",
    "/api/chat": "num_predict",
    "/v1/chat/completions": "max_tokens",
    "/v1/completions": "max_tokens",
    "/v1/responses": "max_output_tokens",
    "/v1/messages": "max_tokens",
}
_INT64 = 2**63
_NO_MODEL, _NOTHING = ModelPlace.NONE, Guard.NONE  # found faster than on their classes, for every request


def no_route(raw_path: bytes) -> ProxyError:
    """What to say where no row matched: ``unknown_route`` or ``method_not_allowed``.

    Said only to callers who are known, so that nobody else learns what is there.
    """
    methods = routes.allowed_methods(raw_path)
    if not methods:
        return ProxyError(
            "unknown_route", "this path is not one of Ollama's routes: check the base URL and the path"
        )
    allow = ", ".join(methods)
    return ProxyError(
        "method_not_allowed", f"this path takes {allow}", headers=((b"Allow", allow.encode("ascii")),)
    )


def guard(identity: Identity, route: Route, policy: Policy) -> Guard:
    """How closely the requests of this caller on this route have to be looked at."""
    if route.model is _NO_MODEL:
        return _NOTHING
    if identity.limited:
        return Guard.PARSE
    cloud = policy.cloud and identity.cloud
    if cloud and not (route.web_tools and Scope.ACCOUNT.value not in identity.scopes):
        return Guard.NONE
    # ``remote_host`` is a way out that has no word of its own.
    return (
        Guard.PARSE if route.model is ModelPlace.BODY_CREATE or route.model is ModelPlace.PATH else Guard.SCAN
    )


def authorise_route(identity: Identity, route: Route, policy: Policy) -> None:
    """Raises ProxyError where the caller may not use the route at all, whatever the request says.

    ``scope_denied`` names the scope that is missing; ``cloud_denied`` where the route acts as the server's
    account and the cloud is closed. Transcriptions are refused to keys with only some models
    (``model_denied``), since their form is read by rules that leave room for doubt, and to keys with a cap
    on answers (``option_denied``), since they cannot state one.
    """
    if identity is not ANONYMOUS and route.scope_name not in identity.scopes:
        raise _scope_denied(route.scope_name)
    if route.scope is Scope.ACCOUNT and not policy.cloud:
        raise _cloud_denied("this route acts as the server's account at ollama.com", policy)
    if route.model is ModelPlace.FORM_MODEL:
        if identity.models is not None:
            raise ProxyError(
                "model_denied",
                "transcriptions are not open to keys that are limited to some models: ask the operator for"
                " another key",
            )
        if identity.limits.max_output_tokens is not None:
            raise ProxyError(
                "option_denied",
                "a transcription cannot say how long it may become, which this key has to: ask the operator"
                " for another key",
            )


def authorise_request(identity: Identity, route: Route, facts: Facts, policy: Policy) -> None:
    """Raises ProxyError where the request asks for what the caller does not have.

    ``model_denied``, ``cloud_denied``, ``scope_denied`` (tools that act as the server's account) or
    ``option_denied``; the text names what is missing. ``unreadable_body`` where a duration is none.
    """
    if identity.models is not None:
        allowed = matcher(identity.models)
        for name in facts.names:
            if not name.canonical or not allowed(name.canonical):
                raise _model_denied(name)
        if facts.insecure:
            raise ProxyError(
                "option_denied",
                "'insecure' is not open to keys that are limited to some models: leave it out",
            )
    if facts.remote or any(name.cloud for name in facts.names):
        _authorise_cloud(identity, facts, policy)
    if facts.web_tools:
        if Scope.ACCOUNT.value not in identity.scopes:
            raise _scope_denied(Scope.ACCOUNT.value, "for a web_search or web_fetch tool")
        if not policy.cloud:
            raise _cloud_denied("web_search and web_fetch tools act as the server's account", policy)
    if identity.limits.any:
        _check_options(identity.limits, route, facts)


def _scope_denied(scope: str, what_for: str = "") -> ProxyError:
    needed = f" {what_for}" if what_for else ""
    return ProxyError(
        "scope_denied", f"this key lacks the scope '{scope}'{needed}: ask the operator for a key that has it"
    )


def _model_denied(name: ModelName) -> ProxyError:
    # A canonical name holds letters, digits and _ - . : / alone, so it may stand in an answer.
    what = f"the model '{name.canonical}'" if name.canonical else "a model of this name"
    return ProxyError("model_denied", f"this key may not use {what}: ask the operator which ones it may")


def _authorise_cloud(identity: Identity, facts: Facts, policy: Policy) -> None:
    if policy.cloud and identity.cloud:
        return
    cloud = next((name.canonical for name in facts.names if name.cloud), "")
    what = f"'{cloud}' runs in the cloud" if cloud else "this request leads to the cloud or another server"
    raise _cloud_denied(what, policy)


def _cloud_denied(what: str, policy: Policy) -> ProxyError:
    if policy.cloud:
        why = "and this key lacks the cloud grant: use a local model, or ask the operator for the grant"
    else:
        why = "and the cloud is closed here: do without, or ask the operator for policy.cloud"
    return ProxyError("cloud_denied", f"{what}, {why}")


def _check_options(limits: Limits, route: Route, facts: Facts) -> None:
    if facts.debug:
        raise _option_denied("_debug_render_only", "leave it out")
    for option in ("num_gpu", "num_thread"):
        if option in facts.options:
            raise _option_denied(option, "leave it out")
    if limits.max_context is not None and "num_ctx" in facts.options:
        context = facts.options["num_ctx"]
        # Ollama cuts fractions, and what it does beyond 64 bits depends on the processor.
        if type(context) is not int or not -_INT64 <= context <= limits.max_context:
            raise _option_denied("num_ctx", f"ask for a whole number, {limits.max_context} at most")
    if limits.max_output_tokens is not None:
        _check_output(limits.max_output_tokens, route, facts)
    if facts.keep_alive is not None:
        _check_keep_alive(limits, facts.keep_alive)


def _check_output(most: int, route: Route, facts: Facts) -> None:
    """An answer without a limit has none in Ollama either, so a request must state one that is allowed."""
    needed = _OUTPUT_LIMIT.get(route.path)
    if needed is not None and needed not in facts.options:
        not_that = " ('max_completion_tokens' is not read by Ollama)" if needed == "max_tokens" else ""
        raise ProxyError(
            "option_denied",
            f"this key must say how long an answer may become: set '{needed}'{not_that} to a whole number"
            f" from 1 to {most}",
        )
    for option in ("num_predict", *OUTPUT_LIMITS):
        if option in facts.options:
            stated = facts.options[option]
            if type(stated) is not int or not 1 <= stated <= most:
                raise _option_denied(option, f"ask for a whole number from 1 to {most}")


def _check_keep_alive(limits: Limits, value: object) -> None:
    least, most = limits.min_keep_alive, limits.max_keep_alive
    if least is None and most is None:
        return
    seconds = keep_alive_seconds(value)
    if seconds is None or seconds < (least or 0) or (most is not None and seconds > most):
        between = f"from {least or 0} s" + (f" to {most} s" if most is not None else "")
        raise _option_denied("keep_alive", f"ask for a duration {between}, or leave it out")


def _option_denied(option: str, right: str) -> ProxyError:
    return ProxyError("option_denied", f"this key may not use '{option}' like this: {right}")
