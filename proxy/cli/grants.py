"""The options that say what a key may do and for how long, the same for every command that takes them."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from proxy.identity.api_keys import Grants, is_model_pattern
from proxy.policy.routes import Scope

LONGEST = 36_500 * 86_400.0
"""Seconds; further away there are no dates."""

_MOST_TOKENS = 2**53


def parse_lifetime(text: str) -> float:
    """Seconds; infinite for ``never``."""
    if text == "never":
        return math.inf
    seconds = _seconds(text)
    if not 1 <= seconds <= LONGEST:
        raise typer.BadParameter("write a duration from 1s to 36500d, or never")
    return seconds


def parse_span(text: str) -> int:
    """Whole seconds; ``0`` needs no unit."""
    seconds = 0.0 if text == "0" else _seconds(text)
    if seconds != int(seconds) or seconds > LONGEST:
        raise typer.BadParameter("write 0, or a duration from 1s to 36500d in whole seconds")
    return int(seconds)


def _seconds(text: str) -> float:
    from proxy.config import parse_duration

    try:
        return parse_duration(text)
    except ValueError as fault:
        raise typer.BadParameter(str(fault)) from None


def _pattern(text: str) -> str:
    if not is_model_pattern(text):
        raise typer.BadParameter(
            "write 1 to 300 printable ASCII characters without blanks, like 'llama3.2:*'"
        )
    return text


ScopeOption = Annotated[
    list[Scope] | None,
    typer.Option(
        "--scope",
        metavar="SCOPE",
        help=f"What it may do: {', '.join(scope.value for scope in Scope)}. Repeatable. "
        "A new key has read and inference where nothing else is said.",
    ),
]
ModelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="PATTERN",
        parser=_pattern,
        help="A model it may use, or many: 'llama3.2' is llama3.2:latest, 'llama3.2:*' every tag. "
        "Repeatable. A new key may use all where none is named.",
    ),
]
ExpiresOption = Annotated[
    float | None,
    typer.Option(
        "--expires",
        metavar="DURATION",
        parser=parse_lifetime,
        help="How long it is good from now on, such as 12h or 90d; or never.",
    ),
]
MaxContextOption = Annotated[
    int | None,
    typer.Option(
        "--max-context",
        metavar="TOKENS",
        min=0,
        max=_MOST_TOKENS,
        help="The largest num_ctx it may ask for; 0 is no limit.",
    ),
]
MaxOutputOption = Annotated[
    int | None,
    typer.Option(
        "--max-output-tokens",
        metavar="TOKENS",
        min=0,
        max=_MOST_TOKENS,
        help="The longest answer; its requests must then say how long theirs may be. 0 is no limit.",
    ),
]
MinKeepAliveOption = Annotated[
    int | None,
    typer.Option(
        "--min-keep-alive",
        metavar="DURATION",
        parser=parse_span,
        help="The shortest keep_alive it may ask for, so that it unloads no model for all. 0 is no limit.",
    ),
]
MaxKeepAliveOption = Annotated[
    int | None,
    typer.Option(
        "--max-keep-alive",
        metavar="DURATION",
        parser=parse_span,
        help="The longest keep_alive it may ask for, so that it pins no model in memory. 0 is no limit.",
    ),
]
CloudOption = Annotated[
    bool | None,
    typer.Option(
        "--cloud/--no-cloud",
        help="Whether it may use cloud models, where the configuration opens the cloud (policy.cloud). "
        "A new key may not.",
    ),
]


def grants_of(
    now: float,
    scope: list[Scope] | None,
    model: list[str] | None,
    expires: float | None,
    max_context: int | None,
    max_output_tokens: int | None,
    min_keep_alive: int | None,
    max_keep_alive: int | None,
    cloud: bool | None,
) -> Grants:
    """Those that were given, and no others."""
    grants = Grants()
    if scope:
        grants["scopes"] = [one.value for one in scope]
    if model:
        grants["models"] = list(dict.fromkeys(model))
    if cloud is not None:
        grants["cloud"] = cloud
    if expires is not None:
        grants["expires"] = None if expires == math.inf else now + expires
    limits = {
        "max_context": max_context,
        "max_output_tokens": max_output_tokens,
        "min_keep_alive": min_keep_alive,
        "max_keep_alive": max_keep_alive,
    }
    given = {name: limit for name, limit in limits.items() if limit is not None}
    if given:
        grants["limits"] = given
    if (min_keep_alive or 0) > (max_keep_alive or math.inf):
        raise typer.BadParameter("it is longer than --max-keep-alive", param_hint="'--min-keep-alive'")
    return grants
