"""Clients that have a certificate and no key: `[tls] client_ca`, the CN is the name of a key."""

from __future__ import annotations

import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import ollama as package
import openai
import pytest

from ..certificates import Authority
from ..wire.site import Keys, Site, keys_command, make_key
from .conftest import Ollama, url_of


@dataclass(frozen=True)
class Clients:
    """A proxy that asks for certificates, and whoever signs those of its clients."""

    site: Site
    authority: Authority
    folder: Path

    def certificate(self, name: str, authority: Authority | None = None) -> tuple[Path, Path]:
        return (authority or self.authority).write_client(self.folder, name)

    def context(self, name: str, authority: Authority | None = None) -> ssl.SSLContext:
        """Trusts the proxy, and shows a certificate for a name."""
        context = ssl.create_default_context(cafile=self.site.config.parent / "data" / "tls.crt")
        context.load_cert_chain(*self.certificate(name, authority))
        return context

    def client(self, name: str, authority: Authority | None = None) -> package.Client:
        return package.Client(url_of(self.site), verify=self.context(name, authority), trust_env=False)

    def curl(self, path: str, *options: str) -> subprocess.CompletedProcess[str]:
        trust = str(self.site.config.parent / "data" / "tls.crt")
        return subprocess.run(
            ["curl", "-s", "--cacert", trust, *options, f"{url_of(self.site)}{path}"],
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@pytest.fixture(scope="module")
def clients(ollama: Ollama, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    folder = tmp_path_factory.mktemp("clients")
    authority = Authority()
    (folder / "clients.crt").write_bytes(authority.certificate)
    for name, options in {"laptop": ["--model", ollama.model], "leaving": []}.items():
        keys.more.append(make_key(keys.store, name, *options))
    tls = {"client_ca": str(folder / "clients.crt"), "client_auth": "required"}
    site = Site(folder / "site", keys, upstream={"url": ollama.url}, tls=tls)
    yield Clients(site, authority, folder)
    site.stop()


def test_ollama_needs_nothing_but_its_certificate(clients: Clients, ollama: Ollama) -> None:
    client = clients.client("laptop")
    assert ollama.model in [model.model for model in client.list().models]
    assert client.chat(ollama.model, [{"role": "user", "content": "Hi"}], options={"num_predict": 2}).done
    with pytest.raises(package.ResponseError, match="this key may not use the model"):
        client.show("oap-test-other")
    with pytest.raises(package.ResponseError, match="manage") as raised:
        client.delete(ollama.model)
    assert raised.value.status_code == 403


def test_httpx_and_curl_need_nothing_but_their_certificate(clients: Clients, ollama: Ollama) -> None:
    with httpx.Client(verify=clients.context("laptop"), trust_env=False) as client:
        assert client.get(f"{url_of(clients.site)}/api/version").json()["version"]
    certificate, key = clients.certificate("laptop")
    done = clients.curl("/v1/models", "--cert", str(certificate), "--key", str(key))
    assert ollama.model in done.stdout


def test_an_sdk_that_has_to_send_some_key_sends_its_own(clients: Clients, keys: Keys) -> None:
    """The certificate is the gate, and the key it sends is the credential."""
    http = openai.DefaultHttpxClient(verify=clients.context("laptop"), trust_env=False)
    url = f"{url_of(clients.site)}/v1"
    assert list(openai.OpenAI(base_url=url, api_key=keys.read, http_client=http).models.list())
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=url, api_key="any", http_client=http).models.list()


def test_nobody_comes_in_without_a_certificate(clients: Clients, keys: Keys) -> None:
    done = clients.curl("/api/version", "-H", f"Authorization: Bearer {keys.read}")
    assert done.returncode != 0
    assert done.stdout == ""


def test_a_certificate_of_another_authority_opens_nothing(clients: Clients) -> None:
    with pytest.raises((ConnectionError, httpx.HTTPError)):
        clients.client("laptop", Authority()).list()


def test_a_certificate_for_nobodys_name_opens_nothing(clients: Clients) -> None:
    with pytest.raises(package.ResponseError) as raised:
        clients.client("nobody").list()
    assert raised.value.status_code == 401


def test_a_certificate_goes_with_the_key_of_its_name(clients: Clients) -> None:
    client = clients.client("leaving")
    assert client.list().models
    keys_command(clients.site.keys.store, "revoke", clients.site.keys.more[-1].split("_")[1])
    time.sleep(2)
    with pytest.raises(package.ResponseError) as raised:
        client.list()
    assert raised.value.status_code == 401
