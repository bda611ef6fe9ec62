"""Holds the picture in docs/architecture.md: which room may know which, and which files are pure.

An arrow is an import of any kind: at the top, inside a function, or for types only, since whoever names
another room's types knows that room.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PROXY = Path(__file__).parents[1] / "proxy"

# In the order in which a request meets them: accept, who, may they, how much, forward, observe.
STAGES = ["server", "identity", "policy", "guard", "limits", "upstream", "observe"]

# A room is a folder or a module of proxy/. What each may import beside itself.
MAY_IMPORT: dict[str, set[str]] = {
    stage: {"errors", *STAGES[:position]} for position, stage in enumerate(STAGES)
} | {
    "errors": set(),
    "allocator": set(),
    "tls": set(),
    "config": {"identity", "policy", "tls"},  # auth.anonymous names routes, auth.jwt issuers
    "store": {"identity", "observe"},  # what is stored is an ApiKey, and rows of the ledger
    "ops": set(),
    "simulator": set(),
    "gateway": {"errors", *STAGES},
    "background": {"observe"},
    "replica": {"background", "config", "gateway", "ops", "store", "tls", *STAGES},
    "app": {"allocator", "config", "observe", "replica", "server", "store", "tls"},
    "quickstart": {"app", "config", "identity", "replica", "simulator", "store", "upstream"},
    "doctor": {"config", "identity", "policy", "store", "tls", "upstream"},
    "cli": {"app", "config", "doctor", "identity", "policy", "quickstart", "replica", "store"},
    "__main__": {"cli"},
}

NAMES_THE_STORE = {"app", "cli", "doctor", "quickstart", "replica", "store"}

# No await, clock, I/O, randomness or logging: what these say depends on their arguments alone.
PURE = [
    "errors.py",
    *sorted(f"policy/{path.name}" for path in (PROXY / "policy").glob("*.py")),
    "server/head.py",
    "upstream/headers.py",
    "guard/judge.py",
    "guard/scan.py",
    "identity/api_keys.py",
    "identity/credentials.py",
    "identity/failures.py",
    "identity/identity.py",
    "identity/issuer.py",
    "identity/jwt.py",
    "identity/jwt_claims.py",
    "identity/jwt_form.py",
    "identity/key_set.py",
    "identity/limits.py",
    "identity/ssh_signature.py",
    "identity/strict_json.py",
    "identity/verdict.py",
    "observe/answer_model.py",
    "observe/sampling.py",
    "observe/usage.py",
]
PURE_LIBRARY = {
    "__future__", "base64", "binascii", "bisect", "collections", "collections.abc", "dataclasses", "enum",
    "fnmatch", "functools", "hashlib", "hmac", "ipaddress", "itertools", "json", "math", "operator", "re",
    "string", "typing", "unicodedata", "zlib",
}  # fmt: skip
EXCEPTIONS = {
    "identity/api_keys.py": {"os"},  # os.urandom, as the default of an argument
    "identity/issuer.py": {"pathlib"},  # names files, and opens none
    "identity/key_set.py": {"cryptography", "jose"},  # signatures are nothing to write oneself
    "identity/ssh_signature.py": {"cryptography"},
}
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "__import__"}


class Import(NamedTuple):
    name: str
    """The module, or what is imported from it: ``proxy.store.keys.open_store``."""
    module: str
    line: int
    in_function: bool


def read(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imports(tree: ast.Module, package: str) -> Iterator[Import]:
    """Every import in a module that stands in ``package``."""
    inner = {
        child
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, alias.name, node.lineno, node in inner)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                yield Import(f"{module}.{alias.name}", module, node.lineno, node in inner)


def room(path: Path) -> str:
    return path.relative_to(PROXY).parts[0].removesuffix(".py")


def package(path: Path) -> str:
    return ".".join(path.relative_to(PROXY.parent).parent.parts)


class Arrow(NamedTuple):
    place: str
    start: str
    end: str
    in_function: bool


FILES = sorted(PROXY.rglob("*.py"))
ARROWS = [
    Arrow(f"{path.relative_to(PROXY.parent)}:{found.line}", room(path), parts[1], found.in_function)
    for path in FILES
    for found in imports(read(path), package(path))
    if (parts := found.name.split("."))[0] == "proxy" and len(parts) > 1 and parts[1] != room(path)
]


def places(arrows: list[Arrow]) -> list[str]:
    return [f"{arrow.place} imports proxy.{arrow.end}" for arrow in arrows]


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
import proxy.app
from proxy.store.keys import open_store as o
from proxy import gateway, cli
from . import pool
from .. import errors
from ..store import rows
if TYPE_CHECKING:
    from proxy.ops.health import State
class C:
    async def f(self):
        import proxy.simulator
"""
    found = list(imports(ast.parse(source), "proxy.upstream"))
    assert {one.name for one in found} == {
        "proxy.app", "proxy.store.keys.open_store", "proxy.gateway", "proxy.cli", "proxy.upstream.pool",
        "proxy.errors", "proxy.store.rows", "proxy.ops.health.State", "proxy.simulator",
    }  # fmt: skip
    assert [one.name for one in found if one.in_function] == ["proxy.simulator"]


def test_every_room_is_in_the_picture() -> None:
    rooms = {room(path) for path in FILES if path != PROXY / "__init__.py"}
    assert rooms <= set(MAY_IMPORT)
    assert set(MAY_IMPORT) - rooms <= {"limits"}


def test_the_package_itself_imports_nothing() -> None:
    assert not list(imports(read(PROXY / "__init__.py"), "proxy"))


@pytest.mark.parametrize("start", sorted(MAY_IMPORT))
def test_a_room_knows_only_those_that_it_may(start: str) -> None:
    assert not places(
        [arrow for arrow in ARROWS if arrow.start == start and arrow.end not in MAY_IMPORT[start]]
    )


def test_no_stage_knows_a_later_one() -> None:
    later = {stage: set(STAGES[position + 1 :]) for position, stage in enumerate(STAGES)}
    assert not places([arrow for arrow in ARROWS if arrow.end in later.get(arrow.start, ())])


def test_no_stage_knows_what_is_built_from_stages() -> None:
    above = {"app", "gateway", "cli", "quickstart", "simulator", "ops", "store", "config", "__main__"}
    assert not places([arrow for arrow in ARROWS if arrow.start in STAGES and arrow.end in above])


def test_only_the_composition_root_and_the_commands_name_a_store() -> None:
    assert not places([a for a in ARROWS if a.end == "store" and a.start not in NAMES_THE_STORE])
    assert {a.start for a in ARROWS if a.end == "store"} == NAMES_THE_STORE - {"store"}


def test_only_quickstart_starts_the_simulator_and_only_when_it_is_needed() -> None:
    arrows = [arrow for arrow in ARROWS if arrow.end == "simulator"]
    assert {arrow.start for arrow in arrows} == {"quickstart"}
    assert all(arrow.in_function for arrow in arrows)


def test_the_simulator_knows_nothing_of_the_proxy_that_it_is_used_to_try() -> None:
    assert not places([arrow for arrow in ARROWS if arrow.start == "simulator"])


# Pure files


@pytest.mark.parametrize("name", PURE)
def test_a_pure_file_imports_pure_things_only(name: str) -> None:
    path = PROXY / name
    pure = {"proxy." + file.removesuffix(".py").replace("/", ".") for file in PURE}
    allowed = PURE_LIBRARY | EXCEPTIONS.get(name, set())
    for found in imports(read(path), package(path)):
        if found.module.split(".")[0] == "proxy":
            assert found.module in pure or found.name in pure, f"line {found.line}"
        else:
            names = {found.module, found.module.split(".")[0]}
            assert names & allowed, f"line {found.line}"


@pytest.mark.parametrize("name", PURE)
def test_a_pure_file_waits_for_nothing_and_touches_nothing(name: str) -> None:
    waits = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Global)
    for node in ast.walk(read(PROXY / name)):
        line = f"line {getattr(node, 'lineno', 0)}"
        assert not isinstance(node, waits), line
        assert not (isinstance(node, ast.Name) and node.id in IMPURE_CALLS), line


def test_of_the_operating_system_keys_take_only_randomness_and_only_by_default() -> None:
    tree = read(PROXY / "identity/api_keys.py")
    uses = {node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "os"}
    defaults = {
        default.value
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for default in [*function.args.defaults, *filter(None, function.args.kw_defaults)]
        if isinstance(default, ast.Attribute) and default.attr == "urandom"
    }
    assert uses
    assert uses == defaults


def test_the_pure_files_are_there() -> None:
    assert [name for name in PURE if not (PROXY / name).is_file()] == []
