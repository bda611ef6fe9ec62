"""What holds the project together: dependencies with reasons and hashes, and commands that exist."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from proxy.cli import app

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")

_PROJECT = tomllib.loads(PYPROJECT)["project"]
DIRECT = [
    *_PROJECT["dependencies"],
    *(one for group in _PROJECT["optional-dependencies"].values() for one in group),
]

# One entry a package: its version, what follows, and at least one hash, each on a line of its own.
LOCKED = {
    canonicalize_name(entry[1]): (entry[2], entry[3])
    for entry in re.finditer(
        r"^([A-Za-z0-9._-]+)==([^ ;\\\n]+)[^\n]*\\\n((?:    --hash=[^\n]+\n)+)", LOCK, re.MULTILINE
    )
}
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def files() -> list[str]:
    """Every file that is, or with the next commit may be, part of the project."""
    command = [
        "git",
        "-c",
        f"safe.directory={ROOT}",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return sorted(name for name in listed.split("\0") if name and (ROOT / name).is_file())


@pytest.mark.parametrize("requirement", DIRECT)
def test_a_dependency_has_its_reason_beside_it(requirement: str) -> None:
    (line,) = (line for line in PYPROJECT.splitlines() if f'"{requirement}"' in line)
    assert re.fullmatch(r'  "[^"]+", +# \S.{10,}', line)


@pytest.mark.parametrize("requirement", DIRECT)
def test_a_dependency_is_locked_in_a_version_that_it_allows(requirement: str) -> None:
    wanted = Requirement(requirement)
    version, _ = LOCKED[canonicalize_name(wanted.name)]
    assert wanted.specifier.contains(version)


def test_every_locked_version_has_hashes() -> None:
    assert len(LOCKED) == len(re.findall(r"^[A-Za-z0-9]", LOCK, re.MULTILINE)) > len(DIRECT)
    for name, (_, hashes) in LOCKED.items():
        for line in hashes.splitlines():
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?", line), name


def test_the_lock_names_packages_only() -> None:
    """No host, index or path: whoever installs decides where from."""
    for line in LOCK.splitlines():
        assert re.match(r"[A-Za-z0-9._-]+==|    --hash=sha256:|    +#", line), line
    assert "://" not in LOCK
    assert "@" not in LOCK


def test_there_is_one_lock() -> None:
    others = {
        "uv.lock",
        "poetry.lock",
        "pdm.lock",
        "Pipfile.lock",
        "pylock.toml",
        "package-lock.json",
        "yarn.lock",
    }
    assert not [name for name in files() if Path(name).name in others]


def test_the_makefile_has_the_commands_that_people_are_told() -> None:
    assert {"run", "test", "check", "bench"} <= TARGETS
    phony = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == TARGETS
    explained = set(re.findall(r"^# make ([a-z-]+)  +\S", MAKEFILE, re.MULTILINE))
    assert explained == TARGETS


def code(document: str) -> list[str]:
    """The lines of code in a Markdown text: fenced, indented, or between backticks."""
    text = (ROOT / document).read_text("utf-8")
    fenced = re.findall(r"^ *```[a-z]*\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4,}(\S.*)$", text, re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", text)
    return [line.strip() for line in [*"\n".join(fenced).splitlines(), *indented, *inline]]


DOCUMENTS = [name for name in files() if name.endswith(".md")]


def test_the_readme_tells_how_to_run_and_to_test() -> None:
    told = {line.split()[1] for line in code("README.md") if line.startswith("make ")}
    assert {"run", "test"} <= told
    assert any(line.startswith("ollama-auth-proxy serve") for line in code("README.md"))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_command_in_the_documents_exists(document: str) -> None:
    assert {line.split()[1] for line in code(document) if re.match("make [a-z]", line)} <= TARGETS


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_ours_in_the_documents_exists(document: str) -> None:
    group = typer.main.get_command(app)
    commands = set(group.commands)  # type: ignore[attr-defined]
    of_keys = set(group.commands["keys"].commands)  # type: ignore[attr-defined]
    for line in code(document):
        for command, second in re.findall(r"(?:^|[ /])ollama-auth-proxy ([a-z][a-z-]+)(?: ([a-z-]+))?", line):
            assert command in commands
            assert command != "keys" or not second or second in of_keys


# Written in pieces, so that this file does not hold what it looks for.
MACHINE_PATHS = re.compile(
    "|".join("/" + rest for rest in ("work/", r"root/(?!\.ollama\b)", r"home/[a-z]", r"Users/[A-Za-z]"))
)


def test_no_file_holds_a_path_of_the_machine_it_was_written_on() -> None:
    names = files()
    assert "pyproject.toml" in names
    found = [
        f"{name}:{number}"
        for name in names
        for number, line in enumerate((ROOT / name).read_text("utf-8", "replace").splitlines(), 1)
        if MACHINE_PATHS.search(line)
    ]
    assert not found
