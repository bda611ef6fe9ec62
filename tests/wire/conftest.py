"""Running proxies for the wire tests: one over TLS and one without, shared; others on demand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest

from .client import Client
from .site import Keys, Site, make_keys
from .upstream import Upstream

Connect = Callable[..., Client]
StartSite = Callable[..., Site]
Moved = Callable[..., None]

numbers = count()


def until(condition: Callable[[], object], timeout: float = 2.0, what: str = "") -> None:
    """Wait until something has become true."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what or "it did not come true in time"
        time.sleep(0.005)


def settled(read: Callable[[], int], quiet: float = 0.5, timeout: float = 10.0) -> int:
    """Wait until a count has not moved for a while, and return it."""
    deadline = time.monotonic() + timeout
    last, since = read(), time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.05)
        if (now := read()) != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > quiet:
            return last
    raise AssertionError(f"still moving after {timeout} s")


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Keys of every kind; the one that lives for a second has expired."""
    return make_keys(tmp_path_factory.mktemp("keys"))  # takes longer than the second


@pytest.fixture(scope="session")
def tls_site(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("tls"), keys)
    yield site
    site.stop()


@pytest.fixture(scope="session")
def plain_site(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("plain"), keys, tls={"mode": "off"})
    yield site
    site.stop()


over_tls_and_plain = pytest.mark.parametrize("site", ["tls", "plain"], indirect=True)


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A shared proxy, over TLS unless the test asks for both, with its upstream as new."""
    shared: Site = request.getfixturevalue(f"{getattr(request, 'param', 'tls')}_site")
    shared.upstream.forget()
    yield shared
    faults = shared.upstream.faults
    shared.upstream.forget()
    assert not faults


@pytest.fixture(scope="module")
def start_site(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Iterator[StartSite]:
    """Start a proxy with other settings; it lives as long as the module."""
    with ExitStack() as stack:

        def start(**options: Any) -> Site:
            site = Site(tmp_path_factory.mktemp("site"), keys, **options)
            stack.callback(site.stop)
            return site

        yield start


@pytest.fixture
def upstream(site: Site) -> Upstream:
    return site.upstream


@pytest.fixture
def connect(site: Site) -> Iterator[Connect]:
    """Open connections to the shared proxy; they are closed with the test."""
    with ExitStack() as stack:

        def open_one(**options: Any) -> Client:
            client = site.connect(**options)
            stack.callback(client.close)
            return client

        yield open_one


@pytest.fixture
def good(site: Site, keys: Keys) -> Callable[[], None]:
    """Checks that a good request of another client is still served."""

    def check() -> None:
        client = site.connect()
        answer = client.request(
            b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: "
            + keys.default.encode()
            + b"\r\n\r\n"
        )
        client.close()
        assert (answer.status, answer.torn) == (200, None)

    return check


@pytest.fixture
def named() -> str:
    """A request id of the test's own."""
    return f"wire-{next(numbers)}-{time.monotonic_ns()}"


@pytest.fixture
def moved(site: Site) -> Moved:
    """Checks by how much a metric has grown since the test began."""
    before = site.samples()

    def check(by: float, name: str, **labels: str) -> None:
        start = site.metric(name, labels, before)
        assert site.wait_for_metric(name, start + by, 2.0, **labels) - start == by, (name, labels)

    return check
