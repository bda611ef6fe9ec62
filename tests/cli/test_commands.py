"""The other commands, and the help of all."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .command import proxy, said

INSTALLED = str(Path(sys.executable).with_name("ollama-auth-proxy"))


def test_check_config_says_ok_and_warns_on_stderr(config_file):
    with config_file.open("a") as file:
        file.write('[listen]\naddress = "0.0.0.0:8443"\n[tls]\nmode = "off"\n')
    done = proxy("check-config", "--config", str(config_file))
    assert (done.returncode, done.stdout) == (0, f"ok: {config_file}\n")
    assert done.stderr.startswith("warning: listen.address")


def test_check_config_reports_every_fault(config_file):
    config_file.write_text('[listen]\nadress = 1\nidle_timeout = "soon"\n')
    done = proxy("check-config", "--config", str(config_file))
    assert done.returncode == 2
    assert "listen.adress" in said(done)
    assert "listen.idle_timeout" in said(done)


def test_version_answers_without_loading_the_program():
    heavy = {"alembic", "fastapi", "pydantic", "sqlalchemy"}
    code = f"import sys, proxy.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    done = proxy("version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)
    assert json.loads(proxy("version", "--json").stdout) == {"version": done.stdout.strip()}


@pytest.mark.parametrize("command", [[sys.executable, "-m", "proxy"], [INSTALLED]], ids=["module", "script"])
def test_a_command_of_a_fresh_interpreter_does_the_same(command, keys, config_file):
    """The other tests fork theirs from a process that has read the program, see `tests/program.py`."""

    def fresh(*arguments):
        words = [*command, "keys", *arguments, "--config", str(config_file)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    code, text, told = fresh("create", "laptop")
    assert (code, text[:4], text[4:14] in told) == (0, "oap_", True)
    for arguments in (("list",), ("create", "laptop")):  # one that succeeds, and one that fails
        forked = keys(*arguments)
        assert fresh(*arguments) == (forked.returncode, forked.stdout, forked.stderr)


COMMANDS = [
    ("quickstart",),
    ("serve",),
    ("check-config",),
    ("version",),
    ("usage",),
    ("doctor",),
    ("health",),
    ("keys", "create"),
    ("keys", "add-ssh"),
    ("keys", "list"),
    ("keys", "show"),
    ("keys", "set"),
    ("keys", "rotate"),
    ("keys", "revoke"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_gives_an_example_that_can_be_copied(command):
    done = proxy(*command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"Examples?:\n\s+ollama-auth-proxy " + " ".join(command), done.stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        *((), ("keys",), ("nonsense",), ("serve", "--nonsense")),
        *(("keys", "create"), ("keys", "add-ssh", "laptop"), ("keys", "show"), ("keys", "set")),
    ],
)
def test_wrong_usage_is_exit_code_2_with_the_usage_on_stderr(arguments):
    done = proxy(*arguments)
    assert done.returncode == 2
    assert said(done).startswith("Usage: ollama-auth-proxy")
