"""The commands. Results go to stdout, everything else to stderr.

Exit codes: 0 done, 1 failed, 2 wrong usage or invalid configuration. What a command needs is imported
inside it, so that ``version`` and ``--help`` answer at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

from proxy.identity.api_keys import DEFAULT_SCOPES
from proxy.policy.routes import Scope

if TYPE_CHECKING:
    from proxy.config import Config
    from proxy.identity.api_keys import ApiKey
    from proxy.store.errors import StoreError
    from proxy.store.keys import KeyStore

Result = TypeVar("Result")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="""TLS, API keys and metrics in front of Ollama.

    \b
    Try it, without any configuration:
        ollama-auth-proxy quickstart

    \b
    Run it for good:
        ollama-auth-proxy check-config --config config.toml
        ollama-auth-proxy keys create laptop --config config.toml
        ollama-auth-proxy serve --config config.toml
    """,
)
keys = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Create, list and revoke API keys.

    A running proxy follows within 2 seconds. The commands write to the store named in the configuration,
    and create it where it is missing. Run them as the user that runs the proxy.
    """,
)
app.add_typer(keys, name="keys")

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The configuration, a TOML file. Without it: the one that OLLAMA_PROXY_CONFIG names, else "
        "/etc/ollama-auth-proxy/config.toml.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
KeyId = Annotated[
    str, typer.Argument(metavar="ID", help="The 10 characters after 'oap_'; 'keys list' shows them.")
]

LONGEST_LIFETIME = 36_500 * 86_400.0  # seconds; further away there are no dates


@app.command()
def quickstart(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Where certificate and keys are kept.")] = Path(
        "data"
    ),
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where clients connect.")
    ] = "127.0.0.1:8443",
    upstream: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Ollama. Without it: the one at 127.0.0.1:11434, else a built-in simulator."
        ),
    ] = None,
) -> None:
    """Try the proxy, without any configuration.

    It makes a certificate and a key for inference, and prints a curl command that works when pasted.

    \b
    Example:
        ollama-auth-proxy quickstart --upstream http://127.0.0.1:11434

    Next: paste the curl command; then write a configuration and use 'serve'.
    """
    from proxy.quickstart import quickstart as run

    raise typer.Exit(run(data, listen, upstream))


@app.command()
def serve(config: ConfigFile = None) -> None:
    """Run the proxy until SIGTERM. Open streams may then finish, for listen.drain_timeout.

    \b
    Example:
        ollama-auth-proxy serve --config config.toml

    Next: 'ollama-auth-proxy keys create NAME' makes a key for each client.
    """
    loaded = _load(config)
    from proxy.app import serve as run

    raise typer.Exit(run(loaded))


@app.command()
def check_config(config: ConfigFile = None) -> None:
    """Say all that is wrong with a configuration. Nothing is started.

    \b
    Example:
        ollama-auth-proxy check-config --config config.toml

    Next: 'ollama-auth-proxy serve' with the same file.
    """
    from proxy.config import file_to_read

    loaded = _load(config)
    for warning in loaded.warnings:
        _say(f"warning: {warning}")
    _print(f"ok: {file_to_read(config, os.environ)}")


@app.command()
def version(as_json: AsJson = False) -> None:
    """Print the version.

    \b
    Example:
        ollama-auth-proxy version --json
    """
    from importlib.metadata import version as version_of

    number = version_of("ollama-auth-proxy")
    _print(json.dumps({"version": number}) if as_json else number)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is; stands in logs and metrics.")],
    scope: Annotated[
        list[Scope],
        typer.Option(
            metavar="SCOPE", help=f"What it may do: {', '.join(s.value for s in Scope)}. Repeatable."
        ),
    ] = [scope for scope in Scope if scope.value in DEFAULT_SCOPES],  # noqa: B006 (read only)
    expires: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="How long it is good for, such as 12h or 90d; else for ever."),
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it. It is shown this once; only its hash is stored.

    \b
    Examples:
        ollama-auth-proxy keys create laptop
        ollama-auth-proxy keys create ci --scope inference --expires 90d

    \b
    Scopes:
        read       list and show models, version, status
        inference  generate, chat, embed, and all of POST /v1/
        manage     pull, create, copy and delete models, upload blobs
        push       push models to a registry
        account    Ollama's account: me, signout, web search
        admin      the proxy's own admin API

    Next: send it as 'Authorization: Bearer KEY' or 'X-Api-Key: KEY'.
    """
    from proxy.config import parse_duration
    from proxy.identity.api_keys import issue
    from proxy.store.listing import members, rfc3339

    now = int(time.time())
    try:
        lifetime = None if expires is None else parse_duration(expires)
    except ValueError as fault:
        raise typer.BadParameter(str(fault), param_hint="'--expires'") from None
    if lifetime is not None and not 1 <= lifetime <= LONGEST_LIFETIME:
        raise typer.BadParameter("write a duration from 1s to 36500d", param_hint="'--expires'")
    scopes = [one.value for one in scope]
    try:
        text, key = issue(name, now, scopes=scopes, expires=None if lifetime is None else now + lifetime)
    except ValueError as fault:
        raise typer.BadParameter(str(fault), param_hint="'NAME'") from None
    _in_store(config, lambda store: store.create(key))
    _print(
        json.dumps({"key": text, **members(key)}, indent=2) if as_json else text,
        when_lost=f"the key {key.id} was made but could not be shown: revoke it and create another",
    )
    _say(
        f"Key {key.id} for {name!r}; scopes: {', '.join(sorted(scopes))}; "
        f"expires: {rfc3339(key.expires) or 'never'}.\n"
        "Keep it now, it is not shown again. Clients send 'Authorization: Bearer KEY' or 'X-Api-Key: KEY'."
    )


@keys.command("list")
def list_keys(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List every key, revoked ones too. The keys themselves are not kept and cannot be shown.

    \b
    Examples:
        ollama-auth-proxy keys list
        ollama-auth-proxy keys list --json | jq -r '.[] | select(.revoked == null) | .name'

    Next: 'keys show ID' for one key, 'keys revoke ID' to end it.
    """
    from proxy.store.listing import members, table

    async def read(store: KeyStore) -> tuple[list[ApiKey], StoreError | None]:
        return await store.list(), await store.unreadable()

    found, fault = _in_store(config, read)
    _print(json.dumps([members(key) for key in found], indent=2) if as_json else table(found, time.time()))
    if fault is not None:
        _fail(f"error: {fault}", code=1)


@keys.command("show")
def show_key(key_id: KeyId, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show one key: name, scopes, times and state.

    \b
    Example:
        ollama-auth-proxy keys show 4fTz81LmQx

    Next: 'keys revoke ID' ends it.
    """
    from proxy.store.listing import details, members

    key = _in_store(config, lambda store: store.get(key_id))
    _print(json.dumps(members(key), indent=2) if as_json else details(key, time.time()))


@keys.command("revoke")
def revoke_key(key_id: KeyId, config: ConfigFile = None) -> None:
    """End a key for good. A running proxy refuses it within 2 seconds.

    \b
    Example:
        ollama-auth-proxy keys revoke 4fTz81LmQx

    Next: its name is free again for 'keys create NAME'.
    """
    key = _in_store(config, lambda store: store.revoke(key_id, time.time()))
    _print(f"revoked {key.id} {key.name}")


def _load(file: Path | None) -> Config:
    from proxy.config import ConfigError, load

    try:
        return load(file, os.environ)
    except ConfigError as fault:
        _fail(str(fault), code=2)


def _in_store(config: Path | None, action: Callable[[KeyStore], Awaitable[Result]]) -> Result:
    path = _load(config).store.path
    from proxy.store.errors import StoreError
    from proxy.store.keys import open_store

    async def run() -> Result:
        store = open_store(path)
        try:
            return await action(store)
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except StoreError as fault:
        _fail(f"error: {fault}", code=1)


def _print(result: str, *, when_lost: str = "") -> None:
    try:
        print(result, flush=True)
    except OSError as fault:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter fails on the same bytes at its end
        lost = f"; {when_lost}" if when_lost else ""
        _fail(f"error: stdout cannot be written: {fault.strerror}{lost}", code=1)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _fail(text: str, *, code: int) -> NoReturn:
    _say(text)
    raise typer.Exit(code)
