"""What is let through, against what a real Ollama does with it: the one that OLLAMA_TEST_URL names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import httpx
import pytest

from . import bodies
from .bodies import PATH, strange
from .reader import OllamaReader, Sent
from .test_differential import SEED, Looked, caller, refusal

pytestmark = pytest.mark.xdist_group("ollama")

REAL_BODIES = 150
NO_CLOUD = "ollama cloud is disabled"


@dataclass(frozen=True)
class RealOllama:
    """Two models that differ in their system prompt: ``own`` is granted, ``sekret`` is not."""

    client: httpx.Client
    own: str
    sekret: str

    def digests(self) -> dict[str, str]:
        """Of the models of this test."""
        models = self.client.get("/api/tags").json()["models"]
        return {one["name"]: one["digest"] for one in models if one["name"].lower().startswith(self.own[:-4])}

    def send(self, sent: Sent) -> httpx.Response:
        method, _, path = sent.route.partition(" ")
        if sent.route == PATH:
            return self.client.get(path.replace("{model}", sent.body.decode()))
        return self.client.request(method, path, content=sent.body)


@pytest.fixture(scope="module")
def real_ollama() -> Iterator[RealOllama]:
    url = os.environ.get("OLLAMA_TEST_URL")
    if not url:
        if os.environ.get("CI") == "true":
            pytest.fail("OLLAMA_TEST_URL names no Ollama", pytrace=False)
        pytest.skip("OLLAMA_TEST_URL names no Ollama")
    names = [f"oap-test-{os.getpid()}-{word}" for word in ("own", "sekret")]
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        models = client.get("/api/tags").json()["models"]
        base = min(
            (one for one in models if "oap-test-" not in one["name"]), key=lambda one: int(one["size"])
        )
        for name in names:
            made = {"model": name, "from": base["name"], "system": f"words of {name}", "stream": False}
            made["parameters"] = {"num_thread": 1}  # as in tests/real
            assert client.post("/api/create", json=made).json() == {"status": "success"}
        ollama = RealOllama(client, *names)
        yield ollama
        for name in ollama.digests():
            client.request("DELETE", "/api/delete", json={"model": name}).raise_for_status()


LetThrough = Callable[[str], Iterator[tuple[Sent, httpx.Response]]]


@pytest.fixture
def let_through(real_ollama: RealOllama, monkeypatch: pytest.MonkeyPatch) -> LetThrough:
    """Sends strange bodies that a key limited to ``own`` may send, and gives them with their answers."""
    own, sekret = real_ollama.own, real_ollama.sekret
    spellings = (
        "{}",
        "{}:latest",
        "library/{}",
        "https://registry.ollama.ai/library/{}:latest",
        "{}:local",
        "{}:copy",
    )
    monkeypatch.setattr(
        bodies, "PLAIN", tuple(one.format(name) for name in (own, sekret) for one in spellings)
    )
    monkeypatch.setattr(bodies, "CLOUD", (f"{own}:cloud", f"{sekret}:7b-cloud"))
    who = caller("one model", (f"{own}:*",))

    def sent(route: str) -> Iterator[tuple[Sent, httpx.Response]]:
        random, count = Random(SEED), 0
        while count < (REAL_BODIES // 4 if route == "POST /api/generate" else REAL_BODIES):
            one = strange(random, route)
            if b"num_" in one.body or b"keep_alive" in one.body:  # would load a model again and again
                continue
            if route == "POST /api/generate":  # tells the model by its system prompt, without running it
                one = Sent(route, one.body.replace(b"{", b'{"_debug_render_only":true,"raw":false,', 1))
            looked = Looked(one)
            if refusal(who, looked):
                continue
            if looked.facts is not None and f"{own}:local" in [name.canonical for name in looked.facts.names]:
                continue  # copied to, it could not be deleted again: there the name is read as the latest
            count += 1
            answer = real_ollama.send(one)
            assert answer.status_code < 500, (one, answer.text)
            assert NO_CLOUD not in answer.text, one
            yield one, answer

    return sent


@pytest.mark.parametrize("route", ["POST /api/show", "POST /api/generate", PATH])
def test_the_real_ollama_never_uses_another_model(
    real_ollama: RealOllama, let_through: LetThrough, route: str
) -> None:
    statuses = Counter[int]()
    for sent, answer in let_through(route):
        assert f"words of {real_ollama.sekret}" not in answer.text, sent
        statuses[answer.status_code] += 1
        if route == PATH and answer.status_code == 200:
            assert answer.json()["id"].lower().startswith(real_ollama.own)
    assert statuses[200] >= 10


def test_the_real_ollama_never_deletes_another_model(
    real_ollama: RealOllama, let_through: LetThrough
) -> None:
    spare, deleted = f"{real_ollama.own}:spare", 0
    copied = {"source": real_ollama.own, "destination": spare}
    real_ollama.client.post("/api/copy", json=copied).raise_for_status()
    for sent, answer in let_through("DELETE /api/delete"):
        if answer.status_code == 200:
            deleted += 1
            assert f"{real_ollama.sekret}:latest" in real_ollama.digests(), sent
            back = {"source": spare, "destination": real_ollama.own}
            real_ollama.client.post("/api/copy", json=back).raise_for_status()
    assert deleted >= 20


def test_the_real_ollama_never_copies_from_or_to_another_model(
    real_ollama: RealOllama, let_through: LetThrough
) -> None:
    before = real_ollama.digests()
    copied = sum(answer.status_code == 200 for _, answer in let_through("POST /api/copy"))
    after = real_ollama.digests()
    assert copied >= 10
    assert after[f"{real_ollama.sekret}:latest"] == before[f"{real_ollama.sekret}:latest"]
    own = {name: digest for name, digest in after.items() if not name.startswith(real_ollama.sekret)}
    assert f"{real_ollama.own}:copy" in own
    assert all(name.lower().startswith(f"{real_ollama.own}:") for name in own)
    assert set(own.values()) == {before[f"{real_ollama.own}:latest"]}


def test_what_the_real_ollama_says_is_what_the_program_says(
    real_ollama: RealOllama, ollama_reader: OllamaReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program's reading of names and bodies, against the one that it stands for."""
    own, sekret = real_ollama.own, real_ollama.sekret
    monkeypatch.setattr(bodies, "PLAIN", (own, f"library/{own}:latest", sekret, f"{sekret}:local"))
    monkeypatch.setattr(bodies, "CLOUD", (f"{own}:cloud", f"{sekret}:7b-cloud"))
    random = Random(SEED)
    sent = [strange(random, "POST /api/show") for _ in range(2 * REAL_BODIES)]
    seen = Counter[str]()
    for one, effect in zip(sent, ollama_reader.ask(sent), strict=True):
        answer = real_ollama.send(one)
        if "cannot unmarshal" in answer.text:  # perhaps a member that the program does not read
            seen["refused"] += 1
        elif NO_CLOUD in answer.text:
            assert effect.cloud, one
            seen["cloud"] += 1
        elif answer.status_code == 200:
            shown = own if f"words of {own}" in answer.text else sekret
            assert [name.partition(":")[0] for name in effect.models] == [shown], (one, effect)
            assert not effect.cloud
            seen["shown"] += 1
        else:
            assert not effect.cloud, (one, effect, answer.text)
            assert {f"{own}:latest", f"{sekret}:latest"}.isdisjoint(effect.models), (one, effect, answer.text)
            seen["refused"] += 1
    assert min(seen["cloud"], seen["shown"], seen["refused"]) >= 30, seen
