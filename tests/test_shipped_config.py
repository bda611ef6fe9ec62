"""The files in config/ are what people copy: they load, and they tell the truth about the defaults."""

from __future__ import annotations

import re
import shutil
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from proxy.config import load
from proxy.config.issuers import JwtTable
from proxy.config.sources import options
from proxy.config.values import Address

from . import certificates

CONFIG = Path(__file__).parents[1] / "config"
ALL_OPTIONS = (CONFIG / "config.toml").read_text("utf-8")
# "# key = value" is a default, "key = value" is set; prose never looks like either.
DEFAULT = re.compile(r"^# ([a-z_]+ = .+)$", re.MULTILINE)
# The comment that begins with a table, up to an empty line.
EXAMPLE = re.compile(r"^#   \[\[auth\.jwt]]\n(#.*\n)+", re.MULTILINE)


def defaults() -> str:
    """The file with every default in force and nothing else."""
    lines = [line for line in ALL_OPTIONS.splitlines() if line.startswith("[") or DEFAULT.match(line)]
    return "\n".join(line.removeprefix("# ") for line in lines)


def example() -> str:
    """The table [[auth.jwt]], which has no default as a whole."""
    (found,) = EXAMPLE.finditer(ALL_OPTIONS)
    return in_force(found[0])


def in_force(comment: str) -> str:
    return re.sub(r"^#(   |$)", "", comment, flags=re.MULTILINE)


def test_every_option_stands_in_the_file_with_its_default() -> None:
    expected = options()
    expected["auth"].remove("jwt")
    assert {table: list(keys) for table, keys in tomllib.loads(defaults()).items()} == expected


def test_the_example_of_an_issuer_has_every_name_with_its_default(tmp_path: Path) -> None:
    (table,) = tomllib.loads(example())["auth"]["jwt"]
    assert list(table) == list(JwtTable.model_fields)
    whole, short = tmp_path / "whole.toml", tmp_path / "short.toml"
    whole.write_text(example())
    short.write_text(
        f'[[auth.jwt]]\nissuer = "{table["issuer"]}"\naudience = "{table["audience"]}"\ndiscovery = true'
    )
    assert load(whole, {}) == load(short, {})


def test_every_name_in_the_example_is_explained() -> None:
    for before, line in pairwise(example().splitlines()):
        assert before.startswith("#") or not re.match("[a-z_]+ = ", line), line


def test_the_example_works_where_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(EXAMPLE.sub(lambda found: in_force(found[0]), ALL_OPTIONS).replace("../data", "data"))
    (issuer,) = load(file, {}).auth.jwt
    assert issuer.issuer == "https://id.example.com/realms/main"


def test_every_default_in_the_file_is_the_one_in_force(tmp_path: Path) -> None:
    written, empty = tmp_path / "written.toml", tmp_path / "empty.toml"
    written.write_text(defaults())
    empty.touch()
    assert load(written, {}) == load(empty, {})


def test_every_option_is_explained() -> None:
    lines = ALL_OPTIONS.splitlines()
    for number, line in enumerate(lines):
        if DEFAULT.match(line):
            before = lines[number - 1]
            assert before.startswith("# "), line
            assert not DEFAULT.match(before), line


def test_the_file_works_in_a_checkout_and_keeps_its_data_beside_config(tmp_path: Path) -> None:
    shutil.copytree(CONFIG, tmp_path / "config")
    config = load(tmp_path / "config" / "config.toml", {})
    files = (config.tls.certificate, config.tls.private_key, config.store.path)
    assert [file.resolve().relative_to(tmp_path).as_posix() for file in files if file] == [
        "data/tls.crt",
        "data/tls.key",
        "data/ollama-auth-proxy.db",
    ]
    assert config.warnings == ()


@pytest.mark.parametrize("name", sorted(file.name for file in CONFIG.glob("*.toml")))
def test_every_shipped_file_loads_without_a_warning(name: str, tmp_path: Path) -> None:
    shutil.copytree(CONFIG, tmp_path / "config")
    tls = tmp_path / "config" / "tls"
    tls.mkdir()
    certificate, private_key = certificates.write_pair(tls, "any", certificates.ec_key())
    certificate.rename(tls / "fullchain.pem")
    private_key.rename(tls / "privkey.pem")
    assert load(tmp_path / "config" / name, {}).warnings == ()


def test_behind_a_balancer_there_is_no_tls_and_the_balancer_is_trusted(tmp_path: Path) -> None:
    config = load(CONFIG / "behind-a-balancer.toml", {})
    assert config.tls.mode == "off"
    assert config.listen.address == Address("127.0.0.1", 8080)
    assert [str(network) for network in config.listen.trusted_proxies] == ["127.0.0.1/32"]
