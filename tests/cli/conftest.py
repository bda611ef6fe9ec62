"""A configuration with a store of its own, and the commands that use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .command import PUBLIC_KEY, Run, proxy


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text('[store]\nurl = "sqlite:///data/keys.db"\n')
    return file


@pytest.fixture
def keys(config_file: Path) -> Run:
    return lambda *arguments, **options: proxy("keys", *arguments, "--config", str(config_file), **options)


@pytest.fixture
def database(config_file: Path) -> Path:
    return config_file.parent / "data" / "keys.db"


@pytest.fixture
def public_key(tmp_path: Path) -> Path:
    file = tmp_path / "id_ed25519.pub"
    file.write_text(f"ssh-ed25519 {PUBLIC_KEY} jo@desk\n")
    return file
