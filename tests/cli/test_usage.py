"""``usage``: sums by key, model and day, in three forms, from a store that it never changes."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime

import pytest

from proxy.observe.ledger import Batch, Row
from proxy.store.ledger import write
from proxy.store.schema import prepare

from .command import Run, proxy, said

SUMS = ["requests", "input_tokens", "output_tokens", "seconds"]
HOUR = int(time.time()) // 3600 * 3600
DAY = 86_400
LAPTOP = Row(HOUR, "4fTz81LmQx", "laptop", "llama3.2:latest", "/api/chat", 1000, 1_234_567, 20, 0.5)
ROWS = [
    LAPTOP,
    LAPTOP._replace(route="/v1/chat/completions", requests=5, input_tokens=3),
    LAPTOP._replace(hour=HOUR - DAY, requests=7, model="qwen3:8b", seconds=1.234),
    Row(HOUR, "0aaaaaaaaa", "desk", "qwen3:8b", "/api/chat", 1, 9, 9, 2.0),
    Row(HOUR - 40 * DAY, "0aaaaaaaaa", "desk", "qwen3:8b", "/api/chat", 100, 100, 100, 100.0),
    Row(HOUR, None, "jwt", None, "/api/tags", 4, 0, 0, 0.25),
]


@pytest.fixture
def usage(config_file) -> Run:
    return lambda *arguments, **options: proxy("usage", *arguments, "--config", str(config_file), **options)


@pytest.fixture
def used(database):
    prepare(database)
    asyncio.run(write(database, Batch("test", 1, tuple(ROWS))))
    return database


def rows(usage: Run, *arguments: str) -> list[dict[str, object]]:
    done = usage(*arguments, "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)["rows"]


def day(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d")


@pytest.mark.usefixtures("used")
def test_by_key_those_with_the_most_tokens_come_first(usage):
    assert rows(usage) == [
        {
            **{"key_id": "4fTz81LmQx", "key_name": "laptop", "requests": 1012},
            **{"input_tokens": 2 * 1_234_567 + 3, "output_tokens": 60, "seconds": 2.234},
        },
        {
            **{"key_id": "0aaaaaaaaa", "key_name": "desk", "requests": 1},
            **{"input_tokens": 9, "output_tokens": 9, "seconds": 2.0},
        },
        {
            **{"key_id": None, "key_name": "jwt", "requests": 4},
            **{"input_tokens": 0, "output_tokens": 0, "seconds": 0.25},
        },
    ]
    assert rows(usage, "--by", "key") == rows(usage, "--by", "key", "--by", "key") == rows(usage)


@pytest.mark.usefixtures("used")
def test_by_model_requests_of_none_are_a_row_of_their_own(usage):
    found = {row["model"]: row["requests"] for row in rows(usage, "--by", "model")}
    assert found == {"llama3.2:latest": 1005, "qwen3:8b": 8, None: 4}


@pytest.mark.usefixtures("used")
def test_rows_have_what_was_asked_for_in_its_order(usage):
    found = rows(usage, "--by", "day", "--by", "model", "--by", "key")
    assert {tuple(row) for row in found} == {("day", "model", "key_id", "key_name", *SUMS)}
    assert [(row["day"], row["model"], row["key_name"], row["requests"]) for row in found] == [
        (day(HOUR - DAY), "qwen3:8b", "laptop", 7),
        (day(HOUR), None, "jwt", 4),
        (day(HOUR), "llama3.2:latest", "laptop", 1005),
        (day(HOUR), "qwen3:8b", "desk", 1),
    ]


@pytest.mark.usefixtures("used")
def test_it_goes_back_as_far_as_was_asked_and_says_how_far(usage):
    assert [row["day"] for row in rows(usage, "--by", "day")] == [day(HOUR - DAY), day(HOUR)]
    assert [row["requests"] for row in rows(usage, "--by", "day", "--since", "90d")] == [100, 7, 1010]
    assert sum(row["requests"] for row in rows(usage, "--since", "1h")) == 1010
    document = json.loads(usage("--format", "json").stdout)
    assert list(document) == ["from", "to", "rows"]
    start, end = (datetime.fromisoformat(document[member]) for member in ("from", "to"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", document["to"])
    assert 7 * DAY <= (end - start).total_seconds() < 7 * DAY + 3600
    assert (start.minute, start.second) == (0, 0)
    assert abs(end.timestamp() - time.time()) < 60


@pytest.mark.usefixtures("used")
def test_the_table_is_aligned_has_a_total_and_numbers_that_can_be_read(usage):
    done = usage()
    lines = done.stdout.splitlines()
    assert len({len(line) for line in lines}) == 1
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines]
    assert cells == [
        ["KEY ID", "KEY", "REQUESTS", "INPUT TOKENS", "OUTPUT TOKENS", "SECONDS"],
        ["4fTz81LmQx", "laptop", "1,012", "2,469,137", "60", "2.2"],
        ["0aaaaaaaaa", "desk", "1", "9", "9", "2.0"],
        ["-", "jwt", "4", "0", "0", "0.2"],
        ["total", "1,017", "2,469,146", "69", "4.5"],
    ]
    assert lines[2].endswith("    2.0")
    assert re.fullmatch(r"From \S+Z to \S+Z\.\n", done.stderr)


@pytest.mark.usefixtures("used")
def test_csv_is_what_spreadsheets_read(usage):
    done = usage("--by", "key", "--by", "day", "--format", "csv", "--since", "90d")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(csv.reader(io.StringIO(done.stdout, newline=""))) == [
        ["key_id", "key_name", "day", *SUMS],
        ["0aaaaaaaaa", "desk", day(HOUR - 40 * DAY), "100", "100", "100", "100.000"],
        ["0aaaaaaaaa", "desk", day(HOUR), "1", "9", "9", "2.000"],
        ["", "jwt", day(HOUR), "4", "0", "0", "0.250"],
        ["4fTz81LmQx", "laptop", day(HOUR - DAY), "7", "1234567", "20", "1.234"],
        ["4fTz81LmQx", "laptop", day(HOUR), "1005", "1234570", "40", "1.000"],
    ]


def test_lines_of_csv_end_as_rfc_4180_has_it(usage, used, tmp_path):
    file = tmp_path / "usage.csv"
    with file.open("w") as stdout:
        usage("--format", "csv", stdout=stdout)
    assert file.read_bytes().count(b"\r\n") == file.read_bytes().count(b"\n") == 4
    assert file.read_bytes().endswith(b"\r\n")


@pytest.mark.usefixtures("used")
def test_keys_that_are_gone_keep_their_usage(usage, keys):
    assert keys("list", "--json").stdout == "[]\n"
    assert "laptop" in usage().stdout


@pytest.mark.parametrize("since", ["7", "soon", "0s", "10ms", "-5d", "999999999d", ""])
def test_a_time_that_is_none_is_wrong_usage_and_the_right_form_is_said(usage, since):
    done = usage(f"--since={since}")
    assert done.returncode == 2
    assert "--since" in said(done)
    assert "write a" in said(done) or "write 36500d at most" in said(done)


@pytest.mark.parametrize(
    ("option", "right"), [("--by", "'key', 'model', 'day'"), ("--format", "'table', 'csv', 'json'")]
)
def test_what_it_does_not_know_is_wrong_usage_and_the_right_words_are_said(usage, option, right):
    done = usage(option, "hour")
    assert done.returncode == 2
    assert right in said(done)


def test_without_a_store_there_is_no_usage_and_none_is_made(usage, database):
    done = usage()
    assert (done.returncode, done.stdout) == (0, "")
    assert f"the key store {database} is not there yet" in done.stderr
    done = usage("--format", "json")
    assert (done.returncode, json.loads(done.stdout)["rows"]) == (0, [])
    assert not database.parent.exists()


def test_where_nothing_was_used_it_says_so_and_what_may_be_the_reason(usage, database):
    prepare(database)
    done = usage("--since", "1h")
    assert (done.returncode, done.stdout) == (0, "")
    assert "No usage from" in done.stderr
    assert "a longer --since looks further back" in done.stderr
    assert usage("--format", "csv").stdout == ",".join(["key_id", "key_name", *SUMS]) + "\r\n"


def test_a_store_from_before_usage_was_counted_has_none_and_stays_as_it_is(usage, database):
    prepare(database)
    with closing(sqlite3.connect(database)) as connection:
        for statement in (
            "DROP TABLE usage",
            "DROP TABLE usage_writers",
            "UPDATE alembic_version SET version_num = '0001'",
        ):
            connection.execute(statement)
        connection.commit()
    done = usage()
    assert (done.returncode, done.stdout) == (0, "")
    assert "No usage" in done.stderr
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)


def test_a_store_of_a_newer_version_is_refused(usage, used):
    with closing(sqlite3.connect(used)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    done = usage()
    assert done.returncode == 1
    assert "was written by a newer version" in said(done)


def test_a_store_that_is_none_is_explained(usage, database):
    database.parent.mkdir()
    database.write_text("no database\n" * 100)
    done = usage()
    assert done.returncode == 1
    assert "is not an SQLite database" in said(done)


def test_it_reads_while_a_proxy_writes(usage, used):
    with closing(sqlite3.connect(used, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE usage SET requests = 0")
        began = time.monotonic()
        assert rows(usage)[0]["requests"] == 1012
        assert time.monotonic() - began < 3


def test_it_never_writes(usage, used):
    with closing(sqlite3.connect(used)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    used.chmod(0o400)
    before = used.read_bytes()
    assert rows(usage)[0]["requests"] == 1012
    assert used.read_bytes() == before
