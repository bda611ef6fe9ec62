"""``keys create``, ``list``, ``show`` and ``revoke``, and what they say where they cannot."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import stat
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.identity.api_keys import digest, reissue
from proxy.store.schema import prepare

from .command import MEMBERS, made, proxy, said, stored


def test_create_prints_the_key_and_nothing_else_on_stdout(keys):
    done = keys("create", "laptop")
    text = done.stdout.removesuffix("\n")
    assert done.returncode == 0
    assert re.fullmatch(r"oap_[0-9A-Za-z]{10}_[0-9A-Za-z]{49}", text)
    assert text[4:14] in done.stderr
    assert text not in done.stderr


def test_the_database_is_made_at_the_first_command_for_its_user_alone(keys, database):
    keys("list")
    assert stat.S_IMODE(database.stat().st_mode) == 0o600
    assert stat.S_IMODE(database.parent.stat().st_mode) == 0o700


def test_the_database_holds_the_hash_of_a_key_and_not_the_key(keys, database):
    text = keys("create", "laptop").stdout.strip()
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT digest FROM key_secrets").fetchall() == [(digest(text.encode()),)]
    content = b"".join(file.read_bytes() for file in database.parent.iterdir())
    assert text[15:58].encode() not in content


def test_create_json_is_one_document_with_the_key(keys):
    done = keys("create", "laptop", "--json")
    document = json.loads(done.stdout)
    assert list(document) == ["key", *MEMBERS]
    assert document["key"][4:14] == document["id"]
    assert document["scopes"] == ["inference", "read"]
    assert (document["name"], document["kind"], document["cloud"]) == ("laptop", "api_key", False)
    assert (document["models"], document["limits"]) == (None, {})
    assert (document["expires"], document["last_used"], document["revoked"]) == (None, None, None)


def test_scopes_are_the_ones_that_were_asked_for(keys):
    assert made(keys, "a", "--scope", "push")["scopes"] == ["push"]
    assert made(keys, "b", "--scope", "admin", "--scope", "read")["scopes"] == ["admin", "read"]


def test_a_lifetime_becomes_the_time_at_which_the_key_expires(keys):
    document = made(keys, "laptop", "--expires", "90d")
    created, expires = (datetime.fromisoformat(document[member]) for member in ("created", "expires"))
    assert expires - created == timedelta(days=90)
    assert abs(datetime.now(UTC) - created) < timedelta(seconds=60)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", document["expires"])


def test_an_unknown_scope_is_wrong_usage_and_the_right_ones_are_listed(keys, database):
    done = keys("create", "laptop", "--scope", "write")
    assert done.returncode == 2
    for scope in ("read", "inference", "manage", "push", "account", "admin"):
        assert f"'{scope}'" in said(done)
    assert not database.exists()


@pytest.mark.parametrize("lifetime", ["90", "soon", "0s", "1ms", "-5d", "999999999d", ""])
def test_a_lifetime_that_is_none_is_wrong_usage(keys, lifetime):
    done = keys("create", "laptop", f"--expires={lifetime}")
    assert done.returncode == 2
    assert "--expires" in said(done)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 65, "jürgen", os.fsdecode(b"\xff")])
def test_a_name_that_could_mislead_is_wrong_usage(keys, name):
    done = keys("create", name)
    assert done.returncode == 2
    assert "1 to 64 letters, digits" in said(done)


def test_a_name_that_is_taken_fails_and_says_by_which_key(keys, database):
    _, first = stored(database, "laptop")
    done = keys("create", "laptop")
    assert done.returncode == 1
    assert f"the name 'laptop' belongs to the key {first['id']}" in said(done)
    assert "revoke" in said(done)


def test_a_key_that_could_not_be_shown_is_named_so_that_it_can_be_revoked(keys):
    with open("/dev/full", "w") as full:
        done = keys("create", "laptop", stdout=full)
    (listed,) = json.loads(keys("list", "--json").stdout)
    assert done.returncode == 1
    assert done.stderr == (
        "error: stdout cannot be written: No space left on device; "
        f"the key {listed['id']} was made but could not be shown: revoke it and create another\n"
    )


def test_list_is_an_aligned_table(keys, database):
    _, first = stored(database, "a", revoked=1)
    _, second = stored(
        database,
        "a longer name",
        scopes=frozenset({"inference"}),
        models=("llama3.2", "qwen3:*"),
        cloud=True,
        limits={"max_context": 8192},
        expires=2**33,
        last_used=int(time.time()),
    )
    lines = keys("list").stdout.splitlines()
    assert [re.split(r"  +", line) for line in lines] == [
        [
            "ID",
            "NAME",
            "KIND",
            "SCOPES",
            "MODELS",
            "CLOUD",
            "LIMITS",
            "CREATED",
            "EXPIRES",
            "LAST USED",
            "STATE",
        ],
        [
            *(first["id"], "a", "api_key", "inference,read", "all", "no", "none"),
            *(first["created"], "never", "never", "revoked"),
        ],
        [
            *(second["id"], "a longer name", "api_key", "inference", "llama3.2,qwen3:*", "yes"),
            "max_context",
            *(second["created"], second["expires"], second["last_used"], "active"),
        ],
    ]
    assert {line.index(first["created"][:4], 40) for line in lines[1:]} == {lines[0].index("CREATED")}


def test_list_says_which_keys_have_expired(keys, database):
    stored(database, "laptop", expires=1)
    assert keys("list").stdout.splitlines()[1].endswith("1970-01-01T00:00:01Z  never      expired")


def test_list_json_is_an_array_of_all_keys_without_their_secrets(keys, database):
    assert json.loads(keys("list", "--json").stdout) == []
    secrets, documents = zip(*(stored(database, name) for name in ("a", "b")), strict=True)
    done = keys("list", "--json")
    listed = sorted(json.loads(done.stdout), key=lambda key: key["name"])
    assert listed == [*documents]
    for secret in secrets:
        assert secret[15:] not in done.stdout
        assert digest(secret.encode()).hex() not in done.stdout


def test_show_tells_about_one_key(keys, database):
    secret, document = stored(database, "laptop")
    assert json.loads(keys("show", document["id"], "--json").stdout) == document
    done = keys("show", document["id"])
    assert done.stdout.splitlines() == [
        f"id         {document['id']}",
        "name       laptop",
        "kind       api_key",
        "scopes     inference,read",
        "models     all",
        "cloud      no",
        f"created    {document['created']}",
        "expires    never",
        "last used  never",
        "revoked    no",
        "state      active",
    ]
    assert secret[15:] not in done.stdout


def test_revoke_ends_a_key_and_frees_its_name(keys, database):
    _, document = stored(database, "laptop")
    done = keys("revoke", document["id"])
    assert (done.returncode, done.stdout) == (0, f"revoked {document['id']} laptop\n")
    shown = json.loads(keys("show", document["id"], "--json").stdout)
    assert shown["revoked"] is not None
    assert keys("revoke", document["id"]).returncode == 0
    assert json.loads(keys("show", document["id"], "--json").stdout) == shown
    assert keys("create", "laptop").returncode == 0


@pytest.mark.parametrize("command", [("show",), ("revoke",), ("set", "--cloud"), ("rotate",)])
def test_an_unknown_id_fails_and_is_not_repeated(keys, database, command):
    text, _ = stored(database, "laptop")
    whole_key = [] if command == ("show",) else [text]  # of which 'show' says whether it is good
    for unknown in ("nosuchkey0", "", os.fsdecode(b"\xff"), *whole_key):
        done = keys(*command, unknown)
        assert done.returncode == 1
        assert said(done) == (
            "error: no key has this id: it is the 10 characters after oap_, "
            "and 'ollama-auth-proxy keys list' shows them"
        )


ALL = [("create", "laptop"), ("list",), ("show", "0000000000"), ("revoke", "0000000000")]
ALL += [("set", "0000000000", "--cloud"), ("rotate", "0000000000"), ("show", f"{reissue('0000000000')}")]


@pytest.mark.parametrize("arguments", ALL)
def test_faults_in_the_configuration_are_all_told_and_nothing_is_touched(
    keys, config_file, database, arguments
):
    config_file.write_text(
        '[store]\nurl = "sqlite:///data/keys.db"\n[listen]\nadress = 1\nidle_timeout = "soon"\n'
    )
    done = keys(*arguments)
    assert done.returncode == 2
    assert "listen.adress" in said(done)
    assert "listen.idle_timeout" in said(done)
    assert not database.exists()


@pytest.mark.parametrize("arguments", ALL)
def test_a_configuration_that_is_not_there_is_told(keys, config_file, arguments):
    config_file.unlink()
    done = keys(*arguments)
    assert done.returncode == 2
    assert f"{config_file}: the file cannot be read" in said(done)


def test_the_configuration_is_found_by_the_environment_too(config_file, database):
    done = proxy("keys", "list", environ={"OLLAMA_PROXY_CONFIG": str(config_file)})
    assert done.returncode == 0
    assert database.exists()


def test_the_configuration_is_looked_for_in_etc_where_nothing_names_another():
    done = proxy("keys", "list")
    assert done.returncode == 2
    assert "/etc/ollama-auth-proxy/config.toml: the file cannot be read" in said(done)


def test_a_key_that_cannot_be_read_hides_no_other_and_can_be_revoked(keys, database):
    good, bad = made(keys, "good")["id"], made(keys, "bad")["id"]
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE keys SET scopes = '[' WHERE id = ?", (bad,))
        connection.commit()
    done = keys("list", "--json")
    assert (done.returncode, [key["id"] for key in json.loads(done.stdout)]) == (1, [good])
    told = f"error: the stored key {bad} cannot be read: revoke it and create another\n"
    assert done.stderr == told
    assert (keys("list").returncode, keys("list").stderr) == (1, told)
    done = keys("revoke", bad)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"revoked {bad} bad\n", "")
    assert (keys("list").returncode, keys("list").stderr) == (0, "")


def test_keys_are_made_before_the_certificate_is(keys, config_file):
    config_file.write_text('[tls]\nmode = "self-signed"\n[store]\nurl = "sqlite:///data/keys.db"\n')
    assert keys("create", "laptop").returncode == 0
    assert [file.name for file in (config_file.parent / "data").iterdir()] == ["keys.db"]


def _no_database(database: Path) -> None:
    database.write_text("no database\n" * 100)


def _damaged(database: Path) -> None:
    content = bytearray(database.read_bytes())
    content[100:] = b"\xff" * (len(content) - 100)
    database.write_bytes(content)


def _newer(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


def _of_another_program(database: Path) -> None:
    database.unlink()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (_no_database, "is not an SQLite database"),
        (_damaged, "is damaged: restore it from a backup"),
        (_newer, "was written by a newer version"),
        (_of_another_program, "is the database of another program"),
    ],
)
def test_a_store_that_cannot_be_used_is_explained(keys, database, harm, sentence):
    prepare(database)
    harm(database)
    for arguments in [("create", "laptop"), ("list",)]:
        done = keys(*arguments)
        assert done.returncode == 1
        assert said(done).startswith("error: ")
        assert sentence in said(done)


def test_a_store_that_another_program_keeps_locked_is_explained(keys, database):
    prepare(database)
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        done = keys("create", "laptop")
        assert keys("list").returncode == 0
    assert done.returncode == 1
    assert "is locked by another process: try again" in said(done)
