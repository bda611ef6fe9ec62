"""``keys rotate``: the same key with another secret."""

from __future__ import annotations

import json
import re
import time

import pytest

from .command import MEMBERS, documents, said, seconds, stored, usable


def test_rotate_prints_the_new_key_and_nothing_else_on_stdout(keys, database):
    old, document = stored(database, "laptop")
    before = time.time()
    done = keys("rotate", document["id"])
    new = done.stdout.removesuffix("\n")
    assert done.returncode == 0
    assert re.fullmatch(r"oap_[0-9A-Za-z]{10}_[0-9A-Za-z]{49}", new)
    assert (new[:15], new != old) == (old[:15], True)
    assert f"Key {document['id']} for 'laptop'; its old secret holds until 20" in done.stderr
    assert new not in done.stderr
    for now, old_holds in [(before, True), (before + 86_390, True), (time.time() + 86_401, False)]:
        assert usable(database, old, now) == old_holds
        assert usable(database, new, now)
    assert documents(database) == [document]


def test_the_overlap_is_what_was_asked_for(keys, database):
    old, document = stored(database, "laptop")
    before = int(time.time())
    rotated = json.loads(keys("rotate", document["id"], "--overlap", "1h", "--json").stdout)
    assert list(rotated) == ["key", "old_secrets_end", *MEMBERS]
    assert {name: rotated[name] for name in MEMBERS} == document
    end = seconds(rotated, "old_secrets_end")
    assert before <= end - 3600 <= time.time()
    assert (usable(database, old, end - 1), usable(database, old, end)) == (True, False)
    assert usable(database, rotated["key"])
    assert f"old secret  holds until {rotated['old_secrets_end']}" in keys("show", document["id"]).stdout


@pytest.mark.parametrize("overlap", ["0", "0s"])
def test_without_an_overlap_the_old_key_ends_at_once(keys, database, overlap):
    old, document = stored(database, "laptop")
    done = keys("rotate", document["id"], "--overlap", overlap)
    assert "its old secret holds no more" in done.stderr
    assert not usable(database, old)
    assert usable(database, done.stdout.strip())
    assert "old secret" not in keys("show", document["id"]).stdout


@pytest.mark.parametrize("overlap", ["24", "soon", "-1h", "99999d", "1500ms", ""])
def test_an_overlap_that_is_none_is_wrong_usage(keys, database, overlap):
    old, document = stored(database, "laptop")
    done = keys("rotate", document["id"], f"--overlap={overlap}")
    assert done.returncode == 2
    assert "--overlap" in said(done)
    assert usable(database, old)


def test_rotating_a_key_that_has_expired_says_what_is_still_missing(keys, database):
    _, document = stored(database, "laptop", expires=1)
    done = keys("rotate", document["id"])
    assert done.returncode == 0
    assert f"The key itself expired: 'keys set {document['id']} --expires 90d' extends it." in done.stderr


def test_a_new_secret_that_could_not_be_shown_is_told(keys, database):
    _, document = stored(database, "laptop")
    with open("/dev/full", "w") as full:
        done = keys("rotate", document["id"], stdout=full)
    assert done.returncode == 1
    assert done.stderr == (
        "error: stdout cannot be written: No space left on device; "
        f"the key {document['id']} has a new secret, which could not be shown: rotate it again\n"
    )


def test_an_ssh_key_cannot_be_rotated_and_it_says_what_to_do(keys, public_key):
    document = json.loads(keys("add-ssh", "desk", str(public_key), "--json").stdout)
    done = keys("rotate", document["id"])
    assert done.returncode == 1
    told = "register the new public key with 'ollama-auth-proxy keys add-ssh' and revoke this one"
    assert told in said(done)
