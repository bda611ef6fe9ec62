"""The command that tells who has used how much of which model."""

from __future__ import annotations

import json
import time
from typing import Annotated, Literal

import typer

from proxy.cli.terminal import ConfigFile, fail, load_config, say, show
from proxy.store.usage_query import By


def _parse_since(text: str) -> int:
    from proxy.config import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError as fault:
        raise typer.BadParameter(str(fault)) from None
    if seconds < 1:
        raise typer.BadParameter("write a duration from 1s to 36500d, for example 24h or 7d")
    return int(seconds)


def show_usage(
    since: Annotated[
        int,
        typer.Option(
            metavar="DURATION",
            parser=_parse_since,
            help="How far back, such as 24h, 7d or 90d. It begins with a full hour.",
        ),
    ] = "7d",  # type: ignore[assignment]  # parsed like what is typed
    by: Annotated[
        list[By] | None,
        typer.Option(
            metavar="key|model|day",
            help="One row for each. Repeatable; without it: key. Days are those of UTC.",
        ),
    ] = None,
    form: Annotated[
        Literal["table", "csv", "json"],
        typer.Option("--format", metavar="table|csv|json", help="For people, spreadsheets or programs."),
    ] = "table",
    config: ConfigFile = None,
) -> None:
    """Show how many requests and tokens each key, model or day has used.

    Counted is what was handed on to Ollama, whatever came back, by the hour in which it ended. What the
    proxy refused is not. Tokens are those that Ollama told, or, of a stream that broke off, the pieces that
    came. Callers with a JWT are one row, and so are those without a credential; neither has a key's id.
    Seconds are how long the requests took, added up. Keys that are gone keep their usage, and all is kept
    for store.usage_retention.

    \b
    Examples:
        ollama-auth-proxy usage
        ollama-auth-proxy usage --since 30d --by day --by model
        ollama-auth-proxy usage --since 90d --by key --by day --format csv > usage.csv
        ollama-auth-proxy usage --format json | jq '[.rows[].output_tokens] | add'

    Next: a running proxy writes every 4 seconds, so the last moments may be missing.
    """
    from proxy.store.errors import StoreError, explained
    from proxy.store.listing import rfc3339
    from proxy.store.usage_query import read_usage
    from proxy.store.usage_report import csv_text, document, table

    path = load_config(config).store.path
    end = int(time.time())
    start = (end - since) // 3600 * 3600  # usage is stored by the hour
    kinds = list(dict.fromkeys(by or [By.KEY]))
    try:
        with explained(path):
            is_there = path.exists()
        rows = read_usage(path, start, end, kinds) if is_there else []
    except StoreError as fault:
        fail(f"error: {fault}", code=1)
    if form == "json":
        show(json.dumps(document(rows, start, end), indent=2))
    elif form == "csv":
        show(csv_text(rows, kinds))
    elif rows:
        show(table(rows, kinds))
    if not is_there:
        say(f"No usage: the key store {path} is not there yet. 'serve' and 'keys create' make it.")
    elif not rows:
        say(
            f"No usage from {rfc3339(start)} to {rfc3339(end)}. A request counts some seconds after it has "
            "ended; a longer --since looks further back."
        )
    elif form == "table":
        say(f"From {rfc3339(start)} to {rfc3339(end)}.")
