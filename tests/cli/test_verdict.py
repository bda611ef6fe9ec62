"""``keys show KEY``: whether a key is good, and if not, why not."""

from __future__ import annotations

import json
import os
import pty
import sys

import pytest

from proxy.identity.api_keys import reissue

from .command import proxy, stored


def mistyped(text: str) -> str:
    return text[:30] + ("a" if text[30] != "a" else "b") + text[31:]


def test_a_good_key_is_called_good_and_described(keys, database):
    text, document = stored(database, "laptop")
    done = keys("show", text)
    verdict, _, rest = done.stdout.partition("\n\n")
    assert (done.returncode, verdict) == (0, "good: this key is accepted")
    assert rest == keys("show", document["id"]).stdout
    assert "history of your shell" in done.stderr
    done = keys("show", "-", input=f"{text}\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{verdict}\n\n{rest}", "")


def test_a_key_that_does_not_work_is_told_why_and_is_not_repeated(keys, database):
    good, document = stored(database, "good")
    key_id = document["id"]
    revoked, _ = stored(database, "revoked", revoked=5)
    expired, _ = stored(database, "expired", expires=5)
    rotated, rotated_document = stored(database, "rotated")
    keys("rotate", rotated_document["id"], "--overlap", "0")
    for text, told in [
        (mistyped(good), "mistyped: the checksum does not fit"),
        (reissue(key_id), f"wrong secret: there is a key {key_id}, but this is not its text"),
        (reissue("0000000000"), "unknown: no key in this store has the id 0000000000"),
        (revoked, "revoked: since 1970-01-01T00:00:05Z"),
        (expired, "expired: since 1970-01-01T00:00:05Z"),
        (rotated, "replaced: the key was rotated"),
        (good[:-1], "not a key: a key is oap_, and 64 characters in all; this has 63"),
    ]:
        done = keys("show", "-", input=f"{text}\n")
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.startswith(told)
        assert text[15:40] not in done.stdout


@pytest.mark.parametrize(
    ("change", "verdict"),
    [(str, "good"), (mistyped, "mistyped"), (lambda _: reissue("0000000000"), "unknown")],
)
def test_the_verdict_can_be_had_as_json(keys, database, change, verdict):
    text, document = stored(database, "laptop")
    presented = change(text)
    done = keys("show", presented, "--json")
    assert done.returncode == (0 if verdict == "good" else 1)
    assert json.loads(done.stdout) == {"verdict": verdict, **(document if verdict == "good" else {})}


@pytest.mark.parametrize("text", ["oap_", "oap_\u00e9", os.fsdecode(b"oap_\xff"), "oap_" + "0" * 60])
def test_what_only_begins_like_a_key_is_called_that(keys, text):
    done = keys("show", text)
    assert done.returncode == 1
    assert done.stdout.startswith(f"not a key: a key is oap_, and 64 characters in all; this has {len(text)}")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("typed", ["", "sk-proj-0123456789", "\xff", "x" * 100_000, "a\nb"])
def test_what_comes_from_stdin_and_is_no_key_is_called_that(keys, database, typed):
    stored(database, "laptop")
    done = keys("show", "-", input=typed)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == "not a key: a key is oap_, and 64 characters in all\n"


def test_a_key_with_a_typing_error_needs_no_store_to_be_found_out(database):
    text, _ = stored(database, "laptop")
    done = proxy("keys", "show", "-", "--config", "/nonexistent.toml", input=mistyped(text))
    assert done.returncode == 1
    assert done.stdout.startswith("mistyped: ")


def test_a_key_that_is_typed_into_a_terminal_is_not_shown_there(config_file, database):
    text, _ = stored(database, "laptop")
    child, terminal = pty.fork()
    if child == 0:
        command = [sys.executable, "-m", "proxy", "keys", "show", "-", "--config", str(config_file)]
        os.execv(sys.executable, command)
    shown = b""
    try:
        while b"Key: " not in shown:
            shown += os.read(terminal, 1024)
        os.write(terminal, text.encode() + b"\n")
        while chunk := os.read(terminal, 1024):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert b"good: this key is accepted" in shown
    assert text[15:].encode() not in shown
