"""The stock `ollama` command: signed by its own key (OLLAMA_AUTH=1), or with an API key in the path."""

from __future__ import annotations

import base64
import os
import re
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ..clients.programs import ollama_command, run
from ..wire.conftest import until
from ..wire.site import Keys, Site, keys_command
from .conftest import Ollama, model_names, url_of
from .relay import Relay

Command = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Owner:
    """Somebody with a home folder, in which the key of their `ollama` is."""

    home: Path
    key: Ed25519PrivateKey

    def signed(self, method: str, path: str, now: float) -> dict[str, str]:
        """The header that the command sends; Go signs the bytes of `METHOD,PATH?ts=TS`."""
        blob = self.key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1].decode()
        signature = self.key.sign(f"{method},{path}?ts={int(now)}".encode())
        return {"Authorization": f"{blob}:{base64.b64encode(signature).decode()}"}

    def register(self, site: Site, name: str, *options: str) -> str:
        """Add the public key as an operator does; returns the id."""
        file = self.home / ".ollama" / "id_ed25519.pub"
        added = keys_command(site.keys.store, "add-ssh", name, str(file), *options)
        match = re.fullmatch(r"added (\w{10}) \S+ SHA256:\S{43}", added)
        assert match, added
        return match[1]


def new_owner(home: Path) -> Owner:
    """What `ollama serve` does when it finds no key."""
    key = Ed25519PrivateKey.generate()
    folder = home / ".ollama"
    folder.mkdir(parents=True)
    private = folder / "id_ed25519"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    private.chmod(0o600)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    (folder / "id_ed25519.pub").write_bytes(public + b" someone@example\n")
    return Owner(home, key)


def known(site: Site, owner: Owner) -> None:
    """Wait until the proxy knows the owner's key."""
    deadline = time.monotonic() + 10
    while status(site, owner, time.time()) == 401:
        assert time.monotonic() < deadline, "the proxy does not follow its store"
        time.sleep(0.1)


def status(site: Site, owner: Owner, now: float) -> int:
    """What a signed request gets whose clock says `now`."""
    path = "/api/version"
    with httpx.Client(base_url=url_of(site), verify=site.trust or True, trust_env=False) as client:
        signed = owner.signed("GET", path, now)
        return client.get(path, params={"ts": int(now)}, headers=signed).status_code


@pytest.fixture(scope="module")
def owner(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Owner:
    """One who may read, ask and manage."""
    owner = new_owner(tmp_path_factory.mktemp("owner"))
    scopes = [word for scope in ("read", "inference", "manage") for word in ("--scope", scope)]
    owner.register(site, "owner", *scopes)
    known(site, owner)
    return owner


def command_of(owner: Owner, url: str, site: Site, **environment: str) -> Command:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        trust = str(site.config.parent / "data" / "tls.crt")
        wanted = {"OLLAMA_AUTH": "1", "OLLAMA_HOST": url, "SSL_CERT_FILE": trust, **environment}
        return run([ollama_command(), *words], owner.home, **wanted)

    return call


@pytest.fixture
def ollama_of(site: Site) -> Callable[[Owner], Command]:
    """The command of somebody."""
    return lambda owner: command_of(owner, url_of(site), site)


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_lists_shows_and_runs_models(
    owner: Owner, ollama_of: Callable[[Owner], Command], brief_model: str
) -> None:
    call = ollama_of(owner)
    assert brief_model in good(call("list"))
    assert "quantization" in good(call("show", brief_model))
    assert good(call("run", brief_model, "Why is the sky blue?")).strip()
    assert "UNTIL" in good(call("ps"))


def test_it_makes_copies_and_removes_models(
    owner: Owner,
    ollama_of: Callable[[Owner], Command],
    ollama: Ollama,
    direct: httpx.Client,
    own_model: Callable[[], str],
) -> None:
    call = ollama_of(owner)
    made, copy = own_model(), own_model()
    (owner.home / "Modelfile").write_text(f"FROM {ollama.model}\nSYSTEM Be brief.\n")
    good(call("create", made, "-f", "Modelfile"))
    good(call("cp", made, copy))
    assert "Be brief." in good(call("show", copy, "--modelfile"))
    good(call("rm", made, copy))
    assert not model_names(direct) & {f"{made}:latest", f"{copy}:latest"}


def test_it_uploads_a_model_file(
    site: Site, owner: Owner, ollama_of: Callable[[Owner], Command], own_model: Callable[[], str]
) -> None:
    (owner.home / "empty.gguf").write_bytes(empty_model())
    (owner.home / "Modelfile.gguf").write_text("FROM ./empty.gguf\n")
    name, before = own_model(), len(site.log)
    good(ollama_of(owner)("create", name, "-f", "Modelfile.gguf"))
    good(ollama_of(owner)("rm", name))

    def uploads() -> list[int]:
        of_blobs = (line for line in site.log[before:] if line.get("route") == "/api/blobs/{digest}")
        return [line["status"] for line in of_blobs if line["method"] == "POST"]

    until(uploads)
    assert uploads() == [201]


def empty_model() -> bytes:
    """A GGUF file without tensors, which no Ollama has yet."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    named = {"general.architecture": "none", "general.name": os.urandom(16).hex()}
    pairs = [text(name) + struct.pack("<I", 8) + text(value) for name, value in named.items()]
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs)


def test_a_strangers_key_is_refused(
    site: Site, ollama_of: Callable[[Owner], Command], ollama: Ollama, tmp_path: Path
) -> None:
    call = ollama_of(new_owner(tmp_path))
    listed = call("list")
    assert listed.returncode == 1
    assert "something went wrong" in listed.stderr
    # The command drops the text of a 401, and says what would be true at ollama.com.
    assert "You need to be signed in" in call("run", ollama.model, "Hi").stdout


def test_who_does_not_sign_is_refused(site: Site, owner: Owner) -> None:
    done = command_of(owner, url_of(site), site, OLLAMA_AUTH="0")("list")
    assert done.returncode == 1


def test_a_revoked_key_is_refused(site: Site, ollama_of: Callable[[Owner], Command], tmp_path: Path) -> None:
    somebody = new_owner(tmp_path)
    key_id = somebody.register(site, "somebody")
    known(site, somebody)
    good(ollama_of(somebody)("list"))
    keys_command(site.keys.store, "revoke", key_id)
    deadline = time.monotonic() + 2
    while (done := ollama_of(somebody)("list")).returncode == 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert done.returncode == 1


def test_a_key_for_one_model_is_told_what_it_may_not(
    site: Site, ollama_of: Callable[[Owner], Command], tmp_path: Path, brief_model: str, ollama: Ollama
) -> None:
    somebody = new_owner(tmp_path)
    scopes = ["--scope", "read", "--scope", "inference", "--scope", "manage"]
    somebody.register(site, "limited", *scopes, "--model", brief_model)
    known(site, somebody)
    call = ollama_of(somebody)
    assert good(call("run", brief_model, "Hi")).strip()
    for words in (
        ("run", ollama.model, "Hi"),
        ("show", ollama.model),
        ("cp", ollama.model, brief_model),
        ("cp", brief_model, "oap-test-wider"),
        ("rm", ollama.model),
    ):
        done = call(*words)
        assert done.returncode == 1, words
        assert "this key may not use the model" in done.stderr, words


def test_a_key_without_the_scope_is_told_which(
    site: Site, ollama_of: Callable[[Owner], Command], tmp_path: Path, ollama: Ollama
) -> None:
    somebody = new_owner(tmp_path)
    somebody.register(site, "asks", "--scope", "read", "--scope", "inference")
    known(site, somebody)
    done = ollama_of(somebody)("cp", ollama.model, "oap-test-copy")
    assert done.returncode == 1
    assert "manage" in done.stderr


@pytest.mark.parametrize(("late", "expected"), [(-61, 401), (-55, 200), (55, 200), (63, 401)])
def test_a_clock_may_be_wrong_by_a_minute(site: Site, owner: Owner, late: int, expected: int) -> None:
    assert status(site, owner, time.time() + late) == expected


def test_a_signature_is_for_one_path(site: Site, owner: Owner) -> None:
    now = int(time.time())
    signed = owner.signed("GET", "/api/version", now)
    with httpx.Client(base_url=url_of(site), verify=site.trust or True, trust_env=False) as client:
        assert client.get("/api/tags", params={"ts": now}, headers=signed).status_code == 401
        assert client.get("/api/version", params={"ts": now + 1}, headers=signed).status_code == 401


@pytest.fixture
def relay(site: Site) -> Iterator[Relay]:
    relay = Relay(site)
    yield relay
    relay.stop()


def test_a_prefix_that_a_balancer_takes_away_is_not_signed(
    site: Site, relay: Relay, owner: Owner, brief_model: str
) -> None:
    call = command_of(owner, relay.url, site)
    assert brief_model in good(call("list"))
    assert good(call("run", brief_model, "Hi")).strip()


def test_neither_signature_nor_time_reach_ollama(keys: Keys, tmp_path: Path) -> None:
    site = Site(tmp_path / "site", keys)
    try:
        owner = new_owner(tmp_path / "owner")
        owner.register(site, "scripted")
        known(site, owner)
        site.upstream.forget()
        command_of(owner, url_of(site), site)("list")
        assert [exchange.target for exchange in site.upstream.requests][-1] == "/api/tags"
        reached = site.upstream.reached().lower()
        assert b"ts=" not in reached
        assert b"authorization" not in reached
        assert owner.signed("GET", "/", 0)["Authorization"].split(":")[0].lower().encode() not in reached
    finally:
        site.stop()


def test_it_takes_an_api_key_in_the_path(site: Site, owner: Owner, limited: str, brief_model: str) -> None:
    call = command_of(owner, f"{url_of(site)}/~{limited}", site, OLLAMA_AUTH="0")
    assert brief_model in good(call("list"))
    assert good(call("run", brief_model, "Hi")).strip()


def test_it_does_not_trust_another_certificate(site: Site, owner: Owner) -> None:
    done = command_of(owner, url_of(site), site, SSL_CERT_FILE="/dev/null")("list")
    assert done.returncode == 1
    assert "certificate signed by unknown authority" in done.stderr
