"""A proxy without any configuration: certificate, key and settings made on the spot, and a curl line."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

import httpx

from proxy.app import run, run_loop
from proxy.config import ConfigError, load
from proxy.config.follow import files_of, signatures
from proxy.identity.api_keys import Refusal, issue, verify
from proxy.replica import Source
from proxy.store.errors import StoreError
from proxy.store.keys import open_store
from proxy.upstream.probe import probe

OLLAMA = "http://127.0.0.1:11434"
KEY_NAME = "quickstart"

_SETTINGS = """\
# Made by 'ollama-auth-proxy quickstart'; kept as you change it. All options: config/config.toml.
[tls]
mode = "self-signed"
certificate = "tls.crt"
private_key = "tls.key"

[ops]
address = "127.0.0.1:0"     # any free port

[store]
url = "sqlite:///ollama-auth-proxy.db"

[log]
format = "text"
"""


def quickstart(data: Path, listen: str, upstream: str | None) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code.

    ``data`` holds certificate, store, settings and key from one run to the next. Without ``upstream`` the
    Ollama at 127.0.0.1:11434 is used when it answers, else the built-in simulator, and said which.
    """
    return run_loop(_quickstart(data, listen, upstream))


async def _quickstart(data: Path, listen: str, upstream: str | None) -> int:
    settings = data / "config.toml"
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not settings.exists():
            settings.write_text(_SETTINGS)
    except OSError as error:
        _say(
            f"{data} cannot be used: {(error.strerror or 'unknown error').lower()}; name another with --data"
        )
        return 1

    environ = {"OLLAMA_PROXY_LISTEN__ADDRESS": listen, "OLLAMA_PROXY_UPSTREAM__URL": upstream or OLLAMA}
    simulator = None
    try:
        config = load(settings, environ)
        url = str(upstream or OLLAMA)
        async with httpx.AsyncClient(trust_env=False) as client:
            answers = await probe(url, client)
            if answers:
                _say(f"Using the Ollama at {url}.")
            elif upstream is not None:
                _say(f"The Ollama at {url} does not answer: requests will fail until it runs there.")
            else:
                from proxy.simulator.server import start  # only where it is announced

                simulator = await start()
                url = simulator.url
                config = load(settings, environ | {"OLLAMA_PROXY_UPSTREAM__URL": url})
                _say(
                    f"No Ollama answers at {OLLAMA}: using the built-in SIMULATOR, which is no language"
                    " model. Start Ollama and run this again for real answers."
                )
            model = await _a_model(url, client)
    except ConfigError as error:
        text = str(error).replace("OLLAMA_PROXY_LISTEN__ADDRESS", "--listen")
        _say(text.replace("OLLAMA_PROXY_UPSTREAM__URL", "--upstream"))
        return 2
    try:
        key = await _key(config.store.path, data / "quickstart.key")
    except (OSError, StoreError) as error:
        _say(str(error))
        return 1

    async def ready(port: int, ops_port: int) -> None:
        host = config.listen.address.host
        where = "localhost" if host in ("127.0.0.1", "0.0.0.0", "::", "::1") else host
        base = f"https://{f'[{where}]' if ':' in where else where}:{port}"
        if answers and model is None:
            _say("This Ollama has no model yet: fetch one first with 'ollama pull llama3.2'.")
        _say(f"Serving at {base}, metrics at http://127.0.0.1:{ops_port}/metrics. Ctrl-C stops it.")
        command = "ollama-auth-proxy" if shutil.which("ollama-auth-proxy") else shlex.quote(sys.argv[0])
        _say(f"More keys: {command} keys create NAME --config {shlex.quote(str(settings.absolute()))}")
        _say("Paste this into another terminal:\n")
        print(_curl(base, config.tls.certificate, key, model or "llama3.2"), flush=True)
        _say("")

    try:
        environ["OLLAMA_PROXY_UPSTREAM__URL"] = url
        source = Source(settings, lambda: load(settings, environ), signatures([settings, *files_of(config)]))
        return await run(config, source, ready, "--listen")
    finally:
        if simulator is not None:
            await simulator.stop()


def _curl(base: str, certificate: Path | None, key: str, model: str) -> str:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Why is the sky blue?"}]})
    return (
        f"curl -N --cacert {shlex.quote(str(certificate))} {base}/api/chat"
        f" -H 'Authorization: Bearer {key}' -d {shlex.quote(body)}"
    )


async def _a_model(url: str, client: httpx.AsyncClient) -> str | None:
    """The name of a model that can chat, where there is one."""
    try:
        for model in (await client.get(f"{url}/api/tags", timeout=5)).json()["models"]:
            name = str(model["name"])
            shown = (await client.post(f"{url}/api/show", json={"model": name}, timeout=5)).json()
            if "completion" in shown.get("capabilities", ["completion"]):
                return name
    except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError):
        pass
    return None


async def _key(store_path: Path, file: Path) -> str:
    """The key of the last run, or a new one where that does not hold any more."""
    store = open_store(store_path)
    try:
        usable = await store.load_all()
        if file.exists():
            kept = file.read_text("ascii", "replace").strip()
            if not isinstance(verify(usable, kept.encode("ascii", "replace"), time.time()), Refusal):
                return kept
        for old in usable.values():
            if old.name == KEY_NAME:
                await store.revoke(old.id, time.time())
        text, key = issue(KEY_NAME, time.time())
        await store.create(key)
    finally:
        await store.close()
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text + "\n")
    return text


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
