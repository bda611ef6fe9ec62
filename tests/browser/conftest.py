"""A Chromium, a page of several origins, and two proxies: one with a list of origins, one open to all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..clients.conftest import simulator as simulator
from ..wire.site import Keys, Site, make_key
from .chromium import Chromium, build, executable, page_server


@dataclass(frozen=True)
class Pages:
    """One page by its URLs. ``allowed`` is of the origin on the list, ``foreign`` is of another one."""

    allowed: str
    foreign: str
    sandboxed: str


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """One ordinary key."""
    store = tmp_path_factory.mktemp("keys") / "keys.db"
    kinds = ("default", "every", "read", "inference", "manage", "push", "account", "revoked", "expired")
    return Keys(store=store, **dict.fromkeys(kinds, make_key(store, "browser")))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    executable()
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="session")
def port(folder: Path) -> Iterator[int]:
    """The page's."""
    with page_server(build(folder)) as port:
        yield port


@pytest.fixture(scope="session")
def pages(port: int) -> Pages:
    here, there = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
    return Pages(f"{here}/index.html", f"{there}/index.html", f"{here}/framed.html")


@pytest.fixture(scope="session")
def listed(simulator: str, keys: Keys, port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy for one origin, before the simulator."""
    site = Site(
        tmp_path_factory.mktemp("listed"),
        keys,
        upstream={"url": simulator},
        auth={"path_keys": True},
        cors={"allow_origins": [f"http://127.0.0.1:{port}"]},
    )
    yield site
    site.stop()


@pytest.fixture(scope="session")
def open_to_all(keys: Keys, port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy for any origin, before a scripted upstream."""
    site = Site(tmp_path_factory.mktemp("open"), keys, cors={"allow_origins": ["*"]})
    yield site
    site.stop()


@pytest.fixture(scope="session")
def chromium(folder: Path, pages: Pages, listed: Site, open_to_all: Site) -> Iterator[Chromium]:
    certificates = [site.config.parent / "data" / "tls.crt" for site in (listed, open_to_all)]
    browser = Chromium(folder, *certificates)
    yield browser
    browser.close()
