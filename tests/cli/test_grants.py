"""What a key may do: given by ``keys create`` and ``keys add-ssh``, changed by ``keys set``."""

from __future__ import annotations

import json
import os
import time

import pytest
from typer.testing import CliRunner

from proxy.cli import app

from .command import MEMBERS, documents, made, said, seconds, stored, usable

EVERY_GRANT = [
    *("--scope", "inference", "--model", "llama3.2", "--model", "hf.co/acme/*", "--cloud"),
    *("--expires", "90d"),
    *("--max-context", "8192", "--max-output-tokens", "500"),
    *("--min-keep-alive", "30s", "--max-keep-alive", "2h"),
]
EVERY_LIMIT = {"max_context": 8192, "max_output_tokens": 500, "min_keep_alive": 30, "max_keep_alive": 7200}


@pytest.mark.parametrize("command", ["create", "add-ssh", "set"])
def test_every_grant_is_stored_by_every_command_that_gives_it(keys, database, public_key, command):
    match command:
        case "create":
            arguments = ["laptop"]
        case "add-ssh":
            arguments = ["laptop", str(public_key)]
        case _:
            arguments = [stored(database, "laptop")[1]["id"]]
    before = int(time.time())
    document = json.loads(keys(command, *arguments, *EVERY_GRANT, "--json").stdout)
    (listed,) = documents(database)
    assert {name: document[name] for name in listed} == listed
    assert list(listed) == MEMBERS
    assert (listed["scopes"], listed["models"]) == (["inference"], ["llama3.2", "hf.co/acme/*"])
    assert (listed["cloud"], listed["limits"]) == (True, EVERY_LIMIT)
    assert before <= seconds(listed, "expires") - 90 * 86_400 <= time.time()
    assert listed["name"] == "laptop"


def test_create_says_what_was_granted(keys):
    done = keys("create", "laptop", *EVERY_GRANT)
    for told in (
        "scopes: inference; models: llama3.2,hf.co/acme/*; cloud: yes; context of at most 8192 tokens; ",
        "answers of at most 500 tokens; keep_alive of at least 30s; keep_alive of at most 2h; expires: 20",
    ):
        assert told in done.stderr


def test_it_is_said_that_the_configuration_keeps_the_cloud_closed(keys, config_file):
    closed = "Cloud models stay closed, to this key too, while policy.cloud is false."
    assert closed in keys("create", "a", "--cloud").stderr
    assert "policy.cloud" not in keys("create", "b").stderr
    with config_file.open("a") as file:
        file.write("[policy]\ncloud = true\n")
    assert "policy.cloud" not in keys("create", "c", "--cloud").stderr


def test_no_cloud_no_limit_and_no_end_can_be_said_too(keys):
    said_so = ["--no-cloud", "--max-context", "0", "--max-keep-alive", "0", "--min-keep-alive=0s"]
    document = made(keys, "laptop", *said_so, "--expires", "never")
    assert (document["cloud"], document["limits"], document["expires"]) == (False, {}, None)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--model", ["", " ", "a b", "a\nb", "jürgen", "x" * 301, os.fsdecode(b"\xff"), "a\x1b[2J"]),
        ("--max-context", ["-1", "4k", "", "1.5", str(2**53 + 1)]),
        ("--max-output-tokens", ["-1", "many"]),
        ("--min-keep-alive", ["-1", "5", "250ms", "1500ms", "soon", "99999d", ""]),
        ("--max-keep-alive", ["-1", "5", "forever"]),
        ("--expires", ["0", "0s", "Never", "1ms"]),
    ],
)
@pytest.mark.parametrize("command", ["create", "add-ssh", "set"])
def test_a_grant_that_makes_no_sense_is_wrong_usage_and_nothing_is_touched(
    config_file, database, public_key, command, option, values
):
    arguments = {"create": ["a"], "add-ssh": ["a", str(public_key)], "set": ["0000000000"]}[command]
    for value in values:
        line = ["keys", command, *arguments, f"{option}={value}", "--config", str(config_file)]
        done = CliRunner().invoke(app, line)  # a process for each would take a minute
        assert (done.exit_code, done.stdout) == (2, ""), value
        assert f"Invalid value for '{option}': " in done.stderr
    assert not database.exists()


@pytest.mark.parametrize("option", ["--requests-per-minute", "--tokens-per-day", "--concurrent", "--weight"])
@pytest.mark.parametrize("command", [("create", "a"), ("add-ssh", "a", "id.pub"), ("set", "0000000000")])
def test_an_option_that_would_not_be_enforced_is_not_there(command, option):
    done = CliRunner().invoke(app, ["keys", *command, option, "1"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "No such option" in done.stderr


def test_a_shortest_keep_alive_above_the_longest_is_refused(keys, database):
    done = keys("create", "laptop", "--min-keep-alive", "10m", "--max-keep-alive", "5m")
    assert done.returncode == 2
    assert "'--min-keep-alive': it is longer than --max-keep-alive" in said(done)
    _, document = stored(database, "laptop", limits={"max_keep_alive": 300})
    done = keys("set", document["id"], "--min-keep-alive", "10m")
    assert done.returncode == 1
    assert f"the key {document['id']} stays as it was: the shortest keep_alive allowed" in said(done)


# keys set


def test_set_changes_what_is_given_and_nothing_else(keys, database):
    grants = {"models": ("a",), "cloud": True, "limits": dict(EVERY_LIMIT), "expires": 2**33, "last_used": 5}
    text, wanted = stored(database, "laptop", **grants)
    for arguments, changes in [
        (["--scope", "push", "--scope", "read"], {"scopes": ["push", "read"]}),
        (["--model", "b", "--model", "c", "--model", "b"], {"models": ["b", "c"]}),
        (["--all-models"], {"models": None}),
        (["--no-cloud"], {"cloud": False}),
        (
            ["--min-keep-alive", "0", "--max-keep-alive", "0s"],
            {"min_keep_alive": None, "max_keep_alive": None},
        ),
        (["--max-context", "0"], {"max_context": None}),
        (["--max-output-tokens", "7", "--cloud"], {"max_output_tokens": 7, "cloud": True}),
        (["--expires", "never"], {"expires": None}),
    ]:
        for member, value in changes.items():
            (wanted["limits"] if member in EVERY_LIMIT else wanted)[member] = value
        wanted["limits"] = {name: limit for name, limit in wanted["limits"].items() if limit}
        done = keys("set", wanted["id"], *arguments, "--json")
        assert done.returncode == 0
        assert json.loads(done.stdout) == wanted
    assert documents(database) == [wanted]
    assert usable(database, text)


def test_a_new_lifetime_counts_from_now(keys, database):
    _, document = stored(database, "laptop", created=1_000_000_000, expires=1_000_000_060)
    before = int(time.time())
    changed = json.loads(keys("set", document["id"], "--expires", "1h", "--json").stdout)
    assert before <= seconds(changed, "expires") - 3600 <= time.time()
    assert changed["created"] == document["created"]


def test_set_shows_the_key_as_it_is_then(keys, database):
    _, document = stored(database, "laptop")
    done = keys("set", document["id"], "--model", "llama3.2", "--max-context", "8192")
    assert done.stdout == keys("show", document["id"]).stdout
    assert "models     llama3.2\n" in done.stdout
    assert "limit      context of at most 8192 tokens\n" in done.stdout


def test_set_without_anything_to_change_is_wrong_usage(keys, database):
    _, document = stored(database, "laptop")
    done = keys("set", document["id"])
    assert done.returncode == 2
    assert "say what to change, for example --expires 90d" in said(done)


def test_all_models_and_some_models_contradict_each_other(keys, database):
    _, document = stored(database, "laptop")
    done = keys("set", document["id"], "--all-models", "--model", "llama3.2")
    assert done.returncode == 2
    assert "name models, or give --all-models, not both" in said(done)


@pytest.mark.parametrize("command", [("set", "--cloud"), ("rotate",)])
def test_a_revoked_key_stays_as_it_is(keys, database, command):
    _, document = stored(database, "laptop", revoked=5)
    done = keys(*command, document["id"])
    assert done.returncode == 1
    assert said(done) == f"error: the key {document['id']} was revoked, which is for good: create another"
