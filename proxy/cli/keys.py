"""The commands that create, show, change, rotate and revoke keys."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.cli.grants import (
    CloudOption,
    ExpiresOption,
    MaxContextOption,
    MaxKeepAliveOption,
    MaxOutputOption,
    MinKeepAliveOption,
    ModelOption,
    ScopeOption,
    grants_of,
    parse_span,
)
from proxy.cli.terminal import AsJson, ConfigFile, fail, in_store, load_config, say, show

if TYPE_CHECKING:
    from proxy.config import Config
    from proxy.identity.api_keys import ApiKey
    from proxy.store.errors import StoreError
    from proxy.store.keys import KeyStore

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Create, list, change, rotate and revoke keys.

    A running proxy follows within 2 seconds. The commands write to the store named in the configuration,
    and create it where it is missing. Run them as the user that runs the proxy.
    """,
)

NewName = Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is; stands in logs and metrics.")]
KeyId = Annotated[
    str, typer.Argument(metavar="ID", help="The 10 characters after 'oap_'; 'keys list' shows them.")
]

_LONGEST_TEXT = 16_384  # characters read of a file or of stdin, where no key has more than a few hundred


@app.command("create")
def create_key(
    name: NewName,
    scope: ScopeOption = None,
    model: ModelOption = None,
    cloud: CloudOption = None,
    max_context: MaxContextOption = None,
    max_output_tokens: MaxOutputOption = None,
    min_keep_alive: MinKeepAliveOption = None,
    max_keep_alive: MaxKeepAliveOption = None,
    expires: ExpiresOption = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it. It is shown this once; only its hash is stored.

    \b
    Examples:
        ollama-auth-proxy keys create laptop
        ollama-auth-proxy keys create ci --scope inference --expires 90d
        ollama-auth-proxy keys create kiosk --model llama3.2 --model 'qwen3:*' --max-context 8192

    \b
    Scopes:
        read       list and show models, version, status
        inference  generate, chat, embed, and all of POST /v1/
        manage     pull, create, copy and delete models, upload blobs
        push       push models to a registry
        account    Ollama's account: me, signout, web search
        admin      the proxy's own admin API

    \b
    Models:
        llama3.2        that one, which is llama3.2:latest
        'llama3.2:*'    every tag of it
        'hf.co/acme/*'  all of a namespace

    Next: send it as 'Authorization: Bearer KEY' or 'X-Api-Key: KEY'.
    """
    from proxy.identity.api_keys import issue
    from proxy.store.listing import members, rights

    now = int(time.time())
    grants = grants_of(
        now, scope, model, expires, max_context, max_output_tokens, min_keep_alive, max_keep_alive, cloud
    )
    try:
        text, key = issue(name, now, **grants)
    except ValueError as fault:
        raise typer.BadParameter(str(fault), param_hint="'NAME'") from None
    loaded = load_config(config)
    in_store(loaded, lambda store: store.create(key))
    show(
        json.dumps({"key": text, **members(key)}, indent=2) if as_json else text,
        when_lost=f"the key {key.id} was made but could not be shown: revoke it and create another",
    )
    say(
        f"Key {key.id} for {name!r}; {rights(key)}.\n"
        "Keep it now, it is not shown again. Clients send 'Authorization: Bearer KEY' or 'X-Api-Key: KEY'."
    )
    _say_what_is_closed(key, loaded)


@app.command("add-ssh")
def add_ssh_key(
    name: NewName,
    public_key_file: Annotated[
        Path,
        typer.Argument(
            metavar="PUBLIC_KEY_FILE",
            help="The client's ~/.ollama/id_ed25519.pub, which Ollama makes; never the file without .pub.",
        ),
    ],
    scope: ScopeOption = None,
    model: ModelOption = None,
    cloud: CloudOption = None,
    max_context: MaxContextOption = None,
    max_output_tokens: MaxOutputOption = None,
    min_keep_alive: MinKeepAliveOption = None,
    max_keep_alive: MaxKeepAliveOption = None,
    expires: ExpiresOption = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Let the stock 'ollama' command in, which signs its requests with a key of its own.

    Nothing secret changes hands: what is registered is the public half. The rights are the same as for
    'keys create', whose help explains them.

    \b
    Examples:
        ollama-auth-proxy keys add-ssh laptop id_ed25519.pub
        ollama-auth-proxy keys add-ssh ops id_ed25519.pub --scope read --scope inference --scope manage

    Next: on the client, 'OLLAMA_AUTH=1 OLLAMA_HOST=https://HOST:8443 ollama list'. Its clock must be right
    within a minute.
    """
    from proxy.identity.api_keys import issue_ssh
    from proxy.identity.ssh_signature import fingerprint, parse_public_key
    from proxy.store.listing import members, rights

    now = int(time.time())
    grants = grants_of(
        now, scope, model, expires, max_context, max_output_tokens, min_keep_alive, max_keep_alive, cloud
    )
    try:
        with public_key_file.open(encoding="utf-8", errors="replace") as file:
            blob = parse_public_key(file.read(_LONGEST_TEXT))
    except OSError as fault:
        unreadable = f"the file cannot be read: {fault.strerror}"
        raise typer.BadParameter(unreadable, param_hint="'PUBLIC_KEY_FILE'") from None
    except ValueError as fault:
        raise typer.BadParameter(str(fault), param_hint="'PUBLIC_KEY_FILE'") from None
    try:
        key = issue_ssh(name, blob, now, **grants)
    except ValueError as fault:
        raise typer.BadParameter(str(fault), param_hint="'NAME'") from None
    loaded = load_config(config)
    in_store(loaded, lambda store: store.create(key))
    mark = fingerprint(key.secrets[0].digest)
    document = {"fingerprint": mark, **members(key)}
    show(json.dumps(document, indent=2) if as_json else f"added {key.id} {key.name} {mark}")
    say(f"{rights(key)}.\nThe client sets OLLAMA_AUTH=1 and OLLAMA_HOST to the address of the proxy.")
    _say_what_is_closed(key, loaded)


@app.command("list")
def list_keys(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List every key, revoked ones too. The keys themselves are not kept and cannot be shown.

    \b
    Examples:
        ollama-auth-proxy keys list
        ollama-auth-proxy keys list --json | jq -r '.[] | select(.revoked == null) | .name'

    Next: 'keys show ID' for one key, 'keys set ID' to change it, 'keys revoke ID' to end it.
    """
    from proxy.store.listing import members, table

    async def read(store: KeyStore) -> tuple[list[ApiKey], StoreError | None]:
        return await store.list(), await store.unreadable()

    found, fault = in_store(load_config(config), read)
    show(json.dumps([members(key) for key in found], indent=2) if as_json else table(found, time.time()))
    if fault is not None:
        fail(f"error: {fault}", code=1)


@app.command("show")
def show_key(
    key_id: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="The 10 characters after 'oap_'; or a whole key; or -, and the key comes from stdin.",
        ),
    ],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show all about one key, or say what is wrong with a key that does not work.

    Given a whole key, it says whether that is good, and otherwise why not; the exit code is 0 only for a
    good one. As '-' it is read from stdin, and does not stay in the history of the shell.

    \b
    Examples:
        ollama-auth-proxy keys show 4fTz81LmQx
        ollama-auth-proxy keys show -

    Next: 'keys set ID' changes it, 'keys rotate ID' gives it a new secret, 'keys revoke ID' ends it.
    """
    from proxy.identity.api_keys import PREFIX

    if key_id == "-":
        _show_verdict(_read_stdin(), config, as_json)
    elif key_id.startswith(PREFIX):
        say("This key may now stand in the history of your shell: 'keys show -' reads it from stdin.")
        _show_verdict(key_id, config, as_json)
    else:
        key = in_store(load_config(config), lambda store: store.get(key_id))
        show(_all_about(key, as_json))


@app.command("set")
def set_key(
    key_id: KeyId,
    scope: ScopeOption = None,
    model: ModelOption = None,
    all_models: Annotated[
        bool, typer.Option("--all-models", help="Every model again, whatever was named before.")
    ] = False,
    cloud: CloudOption = None,
    max_context: MaxContextOption = None,
    max_output_tokens: MaxOutputOption = None,
    min_keep_alive: MinKeepAliveOption = None,
    max_keep_alive: MaxKeepAliveOption = None,
    expires: ExpiresOption = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Change what a key may do, or for how long. What is not named stays; the key itself stays the same.

    Scopes and models take the place of those it had. 0 removes a limit, '--expires never' the end.

    \b
    Examples:
        ollama-auth-proxy keys set 4fTz81LmQx --expires 30d
        ollama-auth-proxy keys set 4fTz81LmQx --model llama3.2 --model 'qwen3:*' --max-context 8192
        ollama-auth-proxy keys set 4fTz81LmQx --all-models --max-context 0

    Next: a running proxy follows within 2 seconds; requests in flight go on.
    """
    if model and all_models:
        raise typer.BadParameter("name models, or give --all-models, not both", param_hint="'--model'")
    grants = grants_of(
        int(time.time()),
        *(scope, model, expires, max_context, max_output_tokens, min_keep_alive, max_keep_alive, cloud),
    )
    if all_models:
        grants["models"] = None
    if not grants:
        raise typer.BadParameter("say what to change, for example --expires 90d")
    loaded = load_config(config)
    key = in_store(loaded, lambda store: store.change(key_id, **grants))
    show(_all_about(key, as_json))
    _say_what_is_closed(key, loaded)


@app.command("rotate")
def rotate_key(
    key_id: KeyId,
    overlap: Annotated[
        int,
        typer.Option(
            metavar="DURATION",
            parser=parse_span,
            help="How long the old secret holds beside the new one; 0 ends it at once.",
        ),
    ] = "24h",  # type: ignore[assignment]  # parsed like what is typed
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Give a key a new secret and print it. Id, name and rights stay; the old secret holds for a while.

    \b
    Examples:
        ollama-auth-proxy keys rotate 4fTz81LmQx
        ollama-auth-proxy keys rotate 4fTz81LmQx --overlap 0

    Next: give the new key to the client before the overlap ends.
    """
    from proxy.identity.api_keys import digest, reissue
    from proxy.store.listing import members, rfc3339

    now = int(time.time())

    async def rotate(store: KeyStore) -> tuple[str, ApiKey]:
        text = reissue((await store.get(key_id)).id)
        return text, await store.rotate(key_id, digest(text.encode("ascii")), now, overlap)

    text, key = in_store(load_config(config), rotate)
    end = rfc3339(now + overlap)
    document = {"key": text, "old_secrets_end": end, **members(key)}
    show(
        json.dumps(document, indent=2) if as_json else text,
        when_lost=f"the key {key.id} has a new secret, which could not be shown: rotate it again",
    )
    say(
        f"Key {key.id} for {key.name!r}; its old secret "
        + (f"holds until {end}.\n" if overlap else "holds no more.\n")
        + "Keep the new one now, it is not shown again."
    )
    if key.expires is not None and now >= key.expires:
        say(f"The key itself expired: 'keys set {key.id} --expires 90d' extends it.")


@app.command("revoke")
def revoke_key(key_id: KeyId, config: ConfigFile = None) -> None:
    """End a key for good. A running proxy refuses it within 2 seconds.

    \b
    Example:
        ollama-auth-proxy keys revoke 4fTz81LmQx

    Next: its name is free again for 'keys create NAME'.
    """
    key = in_store(load_config(config), lambda store: store.revoke(key_id, time.time()))
    show(f"revoked {key.id} {key.name}")


def _say_what_is_closed(key: ApiKey, config: Config) -> None:
    """Names what the key may do, and the configuration lets nobody do."""
    from proxy.identity.api_keys import SSH

    if key.cloud and not config.policy.cloud:
        say("Cloud models stay closed, to this key too, while policy.cloud is false.")
    if key.kind == SSH and not config.auth.ssh_signatures:
        say("Signatures are refused while auth.ssh_signatures is false.")


def _all_about(key: ApiKey, as_json: bool) -> str:
    from proxy.identity.api_keys import SSH
    from proxy.identity.ssh_signature import fingerprint
    from proxy.store.listing import details, members

    if not as_json:
        return details(key, time.time())
    mark = {"fingerprint": fingerprint(key.secrets[0].digest)} if key.kind == SSH and key.secrets else {}
    return json.dumps({**mark, **members(key)}, indent=2)


def _show_verdict(text: str, config: Path | None, as_json: bool) -> None:
    from proxy.identity.api_keys import Form, classify, id_of
    from proxy.identity.verdict import Verdict, judge
    from proxy.store.errors import UnknownKeyError
    from proxy.store.listing import details, members
    from proxy.store.verdict import in_words

    async def find(store: KeyStore) -> ApiKey | None:
        try:
            return await store.get(id_of(text))
        except UnknownKeyError:
            return None

    key = in_store(load_config(config), find) if classify(text) is Form.KEY else None
    now = time.time()
    verdict = judge(text, key, now)
    if as_json:
        show(json.dumps({"verdict": verdict.value, **(members(key) if key else {})}, indent=2))
    else:
        sentence = in_words(verdict, text, key)
        show(f"{sentence}\n\n{details(key, now)}" if key else sentence)
    if verdict is not Verdict.GOOD:
        raise typer.Exit(1)


def _read_stdin() -> str:
    """The key that is typed, without showing it, or that another program writes."""
    if sys.stdin.isatty():
        from getpass import getpass

        return getpass("Key: ", sys.stderr).strip()
    return sys.stdin.buffer.read(_LONGEST_TEXT).decode("ascii", "replace").strip()
