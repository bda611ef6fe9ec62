from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.store.keys import KeyStore, open_store


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "data" / "keys.db"


@pytest.fixture(params=["sqlite"])
def open_key_store(request: pytest.FixtureRequest, database: Path) -> Callable[[], KeyStore]:
    """Opens the store of one backend; called twice it opens the same one again, as two processes do."""
    return {"sqlite": lambda: open_store(database)}[request.param]
