"""A proxy over TLS in front of a real Ollama.

Ollama is the one at OLLAMA_TEST_URL, else at http://127.0.0.1:11434. Without one these tests are skipped,
but with CI=true they fail. They use the weights of a model that is there, and change nothing but models of
their own, whose names begin with `oap-test-`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count

import httpx
import pytest

from ..clients.programs import cannot_run
from ..wire.site import Keys, Site, make_key, make_keys

DEFAULT_URL = "http://127.0.0.1:11434"
OWN_MODELS = "oap-test-"
ANSWER_TIMEOUT = 60.0

numbers = count()


@dataclass(frozen=True)
class Ollama:
    """Where Ollama listens, and a model that answers on one thread.

    Ollama takes a thread for each processor, and they wait for each other without sleeping: with other tests
    on the same machine it would answer ten times as slowly.
    """

    url: str
    model: str


@pytest.fixture(scope="session")
def ollama() -> Iterator[Ollama]:
    url = os.environ.get("OLLAMA_TEST_URL", DEFAULT_URL).rstrip("/")
    try:
        with httpx.Client(base_url=url, trust_env=False, timeout=ANSWER_TIMEOUT) as client:
            name = f"{OWN_MODELS}one-thread:{os.getpid()}"
            made = {"model": name, "from": _smallest_model(client), "parameters": {"num_thread": 1}}
            client.post("/api/create", json={**made, "stream": False}).raise_for_status()
            yield Ollama(url, name)
            client.request("DELETE", "/api/delete", json={"model": name}).raise_for_status()
    except httpx.TransportError as error:
        cannot_run(f"no Ollama answers at {url} ({type(error).__name__}); name one with OLLAMA_TEST_URL")


def _smallest_model(client: httpx.Client) -> str:
    """The smallest of its models that can answer."""
    models = client.get("/api/tags").raise_for_status().json()["models"]
    for model in sorted(models, key=lambda entry: int(entry["size"])):
        name = str(model["name"])
        shown = client.post("/api/show", json={"model": name}).json()
        if not name.startswith(OWN_MODELS) and "completion" in shown.get("capabilities", ()):
            return name
    cannot_run(
        f"the Ollama at {client.base_url} has no model that can answer; "
        "fetch one with 'ollama pull smollm2:135m'"
    )


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def site(ollama: Ollama, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("real"), keys, upstream={"url": ollama.url}, auth={"path_keys": True})
    yield site
    site.stop()


NewKey = Callable[..., str]


@pytest.fixture(scope="session")
def new_key(site: Site) -> NewKey:
    """Makes keys with the options of `keys create`, and waits until the proxy knows them."""

    def make(*options: str) -> str:
        key = make_key(site.keys.store, f"real-{next(numbers)}", *options)
        site.keys.more.append(key)
        wait_until_known(site, {"Authorization": f"Bearer {key}"})
        return key

    return make


def wait_until_known(site: Site, headers: dict[str, str]) -> None:
    with httpx.Client(base_url=url_of(site), verify=site.trust or True, trust_env=False) as client:
        deadline = time.monotonic() + 10
        while client.get("/api/version", headers=headers).status_code == 401:
            assert time.monotonic() < deadline, "the proxy does not follow its store"
            time.sleep(0.1)


@pytest.fixture(scope="session")
def brief_model(ollama: Ollama, direct: httpx.Client) -> Iterator[str]:
    """A model that takes tools and prompts of any length, and answers with one word at once.

    Its template leaves out what it is told, so that clients that say much get whole answers of a small model.
    """
    name = f"{OWN_MODELS}brief-{os.getpid()}"
    template = "{{ if .Tools }}{{ end }}{{ if .Messages }}{{ end }}<|im_start|>user\nHi<|im_end|>\n"
    made = {
        "model": name,
        "from": ollama.model,
        "template": f"{template}<|im_start|>assistant\n",
        "parameters": {"num_ctx": 512, "num_predict": 8, "temperature": 0, "stop": [" ", "!", "\n"]},
        "stream": False,
    }
    direct.post("/api/create", json=made).raise_for_status()
    assert "tools" in direct.post("/api/show", json={"model": name}).json()["capabilities"]
    yield name
    direct.request("DELETE", "/api/delete", json={"model": name}).raise_for_status()


@pytest.fixture(scope="session")
def limited(brief_model: str, new_key: NewKey) -> str:
    """A key for one model."""
    return new_key("--model", brief_model)


@pytest.fixture(scope="session")
def direct(ollama: Ollama) -> Iterator[httpx.Client]:
    """Ollama itself."""
    with httpx.Client(base_url=ollama.url, trust_env=False, timeout=ANSWER_TIMEOUT) as client:
        yield client


@pytest.fixture(scope="session")
def seconds_a_token(ollama: Ollama, direct: httpx.Client) -> float:
    """How long Ollama takes for a token, by its own account."""
    question = {"model": ollama.model, "prompt": "1 2 3 4", "raw": True, "stream": False}
    answer = direct.post("/api/generate", json={**question, "options": {"num_predict": 10}}).json()
    return float(answer["eval_duration"]) / float(answer["eval_count"]) / 1e9


Proxied = Callable[[str], httpx.Client]


@pytest.fixture(scope="session")
def proxied(site: Site) -> Iterator[Proxied]:
    """Ollama through the proxy, with the key given."""
    with ExitStack() as stack:
        clients: dict[str, httpx.Client] = {}

        def client(key: str) -> httpx.Client:
            if key not in clients:
                clients[key] = stack.enter_context(
                    httpx.Client(
                        base_url=url_of(site),
                        headers={"Authorization": f"Bearer {key}"},
                        verify=site.trust or True,
                        trust_env=False,
                        timeout=ANSWER_TIMEOUT,
                    )
                )
            return clients[key]

        yield client


def url_of(site: Site) -> str:
    return f"https://localhost:{site.port}"


@pytest.fixture
def trusted(site: Site, monkeypatch: pytest.MonkeyPatch) -> str:
    """The proxy's URL, with its certificate trusted the way operators tell clients to: by SSL_CERT_FILE."""
    monkeypatch.setenv("SSL_CERT_FILE", str(site.config.parent / "data" / "tls.crt"))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return url_of(site)


def model_names(direct: httpx.Client) -> set[str]:
    return {entry["name"] for entry in direct.get("/api/tags").json()["models"]}


@pytest.fixture
def own_model(direct: httpx.Client) -> Iterator[Callable[[], str]]:
    """Names for models of the test's own; those that exist at its end are deleted."""
    names: list[str] = []

    def name() -> str:
        names.append(f"{OWN_MODELS}{os.getpid()}-{next(numbers)}")
        return names[-1]

    yield name
    for one in names:
        assert direct.request("DELETE", "/api/delete", json={"model": one}).status_code in (200, 404)
