"""The JavaScript SDKs on Node, with NODE_EXTRA_CA_CERTS: the key in a header or in the path."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ..clients.programs import npm_packages, run
from ..wire.site import Keys, Site
from .conftest import Ollama, url_of

SCRIPTS = Path(__file__).parent / "javascript"
every_sdk = pytest.mark.parametrize("sdk", sorted(script.stem for script in SCRIPTS.glob("*.mjs")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the packages, as its owner has it."""
    packages = npm_packages()
    folder = tmp_path_factory.mktemp("javascript")
    (folder / "node_modules").symlink_to(packages)
    shutil.copytree(SCRIPTS, folder, dirs_exist_ok=True)
    return folder


def answers(folder: Path, sdk: str, site: Site, **environment: str) -> dict[str, Any]:
    trust = {"NODE_EXTRA_CA_CERTS": str(site.config.parent / "data" / "tls.crt")}
    done = run(["node", f"{sdk}.mjs"], folder, **trust, **environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@every_sdk
@pytest.mark.parametrize("place", ["header", "path"])
def test_it_streams_and_is_told_what_it_may_not(
    sdk: str, place: str, folder: Path, site: Site, limited: str, brief_model: str, ollama: Ollama
) -> None:
    base, key = (url_of(site), limited) if place == "header" else (f"{url_of(site)}/~{limited}", "")
    found = answers(folder, sdk, site, BASE=base, KEY=key, MODEL=brief_model, OTHER=ollama.model)
    assert found["parts"] > 1
    assert found["text"]
    assert found["embeddings"] == 2
    assert found["refused"]["status"] == 403
    assert "this key may not use the model" in found["refused"]["message"]


@every_sdk
def test_it_is_told_that_its_key_is_wrong(sdk: str, folder: Path, site: Site, keys: Keys) -> None:
    trust = {"NODE_EXTRA_CA_CERTS": str(site.config.parent / "data" / "tls.crt")}
    environment = {"BASE": url_of(site), "KEY": keys.unknown, "MODEL": "any", "OTHER": "any", **trust}
    done = run(["node", f"{sdk}.mjs"], folder, **environment)
    assert done.returncode == 1
    assert "check the key" in done.stderr


def test_node_does_not_trust_another_certificate(folder: Path, site: Site, keys: Keys) -> None:
    environment = {"BASE": url_of(site), "KEY": keys.inference, "MODEL": "any", "OTHER": "any"}
    done = run(["node", "ollama.mjs"], folder, **environment)
    assert done.returncode == 1
    assert "fetch failed" in done.stderr
    assert "certificate" in done.stderr
