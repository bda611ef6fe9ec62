"""The log of everything that is not a request: one stream, one format, libraries and tracebacks included."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from proxy.observe.events import configure, log
from proxy.observe.log_stream import LogStream

Told = Callable[..., list[str]]


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    """Runs something under the configured logging and returns the lines that came out."""
    root = logging.getLogger()
    handlers, levels = root.handlers[:], (root.level, log.level)

    def run(log_format: str, work: Callable[[], Any]) -> list[str]:
        path = tmp_path / "log"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        stream = LogStream(fd)
        configure(stream, log_format)
        try:
            work()
        finally:
            stream.close()
            os.close(fd)
        return path.read_text().splitlines()

    yield run
    logging.captureWarnings(False)
    root.handlers = handlers
    root.setLevel(levels[0])
    log.setLevel(levels[1])


def fail() -> None:
    try:
        raise LookupError("deep\ndown")
    except LookupError:
        log.exception("a fault: %s", "here")


def test_an_event_is_one_json_object_on_one_line(told: Told) -> None:
    (line,) = told("json", lambda: log.warning("port %d is taken\nby another", 80))
    document = json.loads(line)
    moment = datetime.fromisoformat(document.pop("time"))
    assert moment.tzinfo == UTC
    assert document == {
        "event": "log",
        "level": "warning",
        "logger": "ollama_auth_proxy",
        "message": "port 80 is taken\nby another",
    }


def test_fields_stand_beside_the_text_and_may_name_the_event(told: Told) -> None:
    fields = {"event": "audit", "key_id": "0123456789", "path": Path("/x"), "name": "Käthe"}
    (line,) = told("json", lambda: log.info("key revoked", extra={"fields": fields}))
    document = json.loads(line)
    assert document["event"] == "audit"
    assert (document["key_id"], document["path"], document["name"]) == ("0123456789", "/x", "Käthe")
    assert document["message"] == "key revoked"
    assert line.isascii()


def test_a_traceback_is_a_member_of_the_same_line(told: Told) -> None:
    (line,) = told("json", fail)
    document = json.loads(line)
    assert (document["level"], document["message"]) == ("error", "a fault: here")
    assert document["traceback"].startswith("Traceback (most recent call last):\n")
    assert "LookupError: deep\ndown" in document["traceback"]


def test_libraries_and_their_warnings_speak_the_same_format(told: Told) -> None:
    def work() -> None:
        logging.getLogger("some.library").warning("beware")
        warnings.warn("old api", DeprecationWarning, stacklevel=1)

    with warnings.catch_warnings():  # in front of pytest's own capture
        warnings.simplefilter("always")
        lines = [json.loads(line) for line in told("json", work)]
        logging.captureWarnings(False)
    assert [line["logger"] for line in lines] == ["some.library", "py.warnings"]
    assert lines[0]["message"] == "beware"
    assert "DeprecationWarning: old api" in lines[1]["message"]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_libraries_tell_only_what_is_wrong_and_we_what_happens(told: Told, log_format: str) -> None:
    def work() -> None:
        logging.getLogger("some.library").info("chatter")
        log.debug("detail")
        log.info("started")

    lines = told(log_format, work)
    assert len(lines) == 1
    assert "started" in lines[0]


def test_text_that_no_utf_8_can_hold_is_still_a_line(told: Told) -> None:
    (line,) = told("json", lambda: log.info("odd %s", "\ud800"))
    assert json.loads(line)["message"] == "odd \ud800"
    (line,) = told("text", lambda: log.info("odd %s", "\ud800"))
    assert line.endswith("info odd ?")


def test_as_text_an_event_is_a_line_for_people(told: Told) -> None:
    (line,) = told("text", lambda: log.info("key %s", "made", extra={"fields": {"key_id": "0123456789"}}))
    moment, _, rest = line.partition(" ")
    assert datetime.fromisoformat(moment).tzinfo == UTC
    assert rest == "info key made key_id=0123456789"


def test_as_text_a_traceback_follows_its_line(told: Told) -> None:
    lines = told("text", fail)
    assert lines[0].endswith("error a fault: here")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-2:] == ["LookupError: deep", "down"]


def test_configuring_again_replaces_the_stream(told: Told) -> None:
    def work() -> None:
        root = logging.getLogger()
        assert len(root.handlers) == 1

    assert told("json", work) == []
    assert told("text", lambda: log.info("once")) != []
    assert len(told("json", lambda: log.info("once"))) == 1
