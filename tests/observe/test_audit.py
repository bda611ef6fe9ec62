"""What the audit lines say of keys, configurations and refusals."""

from __future__ import annotations

import json
import logging
from dataclasses import fields, replace
from typing import Any

import pytest

from proxy.identity.api_keys import ApiKey, Secret
from proxy.observe.audit import MOST_KEYS, Audit
from proxy.observe.sampling import TOLD, WINDOW

KEY = ApiKey("0123456789", "laptop", (Secret(b"d" * 32),), frozenset({"read"}), 1.0)
LOGGER = "ollama_auth_proxy.audit"


class Told:
    """The records, as (action, level, fields)."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def records(self) -> list[logging.LogRecord]:
        return [record for record in self._caplog.records if record.name == LOGGER]

    def fields(self) -> list[dict[str, Any]]:
        return [vars(record)["fields"] for record in self.records()]

    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records()]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    caplog.set_level(logging.INFO, LOGGER)
    return Told(caplog)


def by_id(*keys: ApiKey) -> dict[str, ApiKey]:
    return {key.id: key for key in keys}


REVOKED = replace(KEY, revoked=5.0)
CHANGES: dict[str, tuple[list[ApiKey], list[ApiKey], str | None, list[str]]] = {
    "created": ([], [KEY], "key_created", []),
    "revoked": ([KEY], [REVOKED], "key_revoked", []),
    "gone": ([KEY], [], "key_revoked", []),
    "gone-later": ([REVOKED], [], None, []),
    "came-revoked": ([], [REVOKED], None, []),
    "nothing": ([KEY], [KEY], None, []),
    "used": ([KEY], [replace(KEY, last_used=9.0)], None, []),
    "scopes": ([KEY], [replace(KEY, scopes=frozenset({"push"}))], "key_changed", ["scopes"]),
    "many": (
        [KEY],
        [replace(KEY, models=("a*",), cloud=True, expires=9.0, limits={"max_context": 4})],
        *("key_changed", ["cloud", "expires", "limits", "models"]),
    ),
    "rotated": ([KEY], [replace(KEY, secrets=(*KEY.secrets, Secret(b"e" * 32)))], "key_rotated", []),
    "rotated-and-changed": (
        [KEY],
        [replace(KEY, secrets=(Secret(b"e" * 32),), cloud=True)],
        *("key_rotated", ["cloud"]),
    ),
    "revoked-and-changed": ([KEY], [replace(REVOKED, cloud=True)], "key_revoked", []),
}


@pytest.mark.parametrize(("before", "after", "action", "changed"), CHANGES.values(), ids=CHANGES)
def test_what_became_of_a_key_is_told_once(
    before: list[ApiKey], after: list[ApiKey], action: str | None, changed: list[str], told: Told
) -> None:
    Audit().keys(by_id(*before), by_id(*after))
    if action is None:
        assert not told.records()
        return
    (line,) = told.fields()
    assert sorted(line.pop("changed")) == changed
    assert line == {"action": action, "key_id": KEY.id, "key_name": KEY.name}
    (record,) = told.records()
    assert vars(record)["event"] == "audit"
    assert KEY.name in record.getMessage()


def test_no_digest_of_a_secret_and_no_value_of_a_right_is_told(told: Told) -> None:
    after = replace(KEY, secrets=(Secret(b"e" * 32),), models=("hf.co/secret/*",), limits={"max_context": 77})
    Audit().keys(by_id(KEY), by_id(after))
    text = json.dumps(told.fields(), default=str) + told.texts()[0]
    assert not [word for word in ("dddd", "eeee", "hf.co", "77", "64646464") if word in text]


def test_every_member_of_a_key_that_can_change_is_told_of() -> None:
    """Of a new member somebody has to decide this too."""
    assert {field.name for field in fields(ApiKey)} == {
        *("id", "name", "secrets", "scopes", "created", "expires", "kind", "models", "cloud", "limits"),
        *("last_used", "revoked"),
    }


def test_a_restored_backup_with_thousands_of_keys_fills_no_log(told: Told) -> None:
    keys = [replace(KEY, id=f"{number:010}", name=f"key {number}") for number in range(MOST_KEYS + 900)]
    Audit().keys({}, by_id(*keys))
    lines = told.fields()
    assert len(lines) == MOST_KEYS + 1
    assert lines[-1] == {"action": "keys_changed", "count": 900}
    assert told.texts()[-1] == "900 keys more changed at once"


def test_a_configuration_is_told_with_what_it_changes_and_what_waits(told: Told) -> None:
    Audit().configured({"log.level", "auth.path_keys"}, {"store.url", "listen.address"})
    (line,) = told.fields()
    assert line == {
        "action": "configuration_changed",
        "changed": ["auth.path_keys", "log.level"],
        "restart_needed": ["listen.address", "store.url"],
    }
    assert told.texts() == [
        "the configuration was read again: auth.path_keys, log.level changed;"
        " listen.address, store.url will not count before a restart"
    ]


def test_one_that_changes_no_option_says_so(told: Told) -> None:
    Audit().configured([], [])
    assert told.texts() == ["the configuration was read again: no option changed"]


def test_one_that_is_refused_is_an_error_with_every_fault(told: Told) -> None:
    Audit().configuration_refused(iter(["a: one; mend", "b: two; mend"]))
    (record,) = told.records()
    assert record.levelno == logging.ERROR
    assert told.fields() == [{"action": "configuration_refused", "faults": ["a: one; mend", "b: two; mend"]}]
    assert record.getMessage().endswith("a: one; mend | b: two; mend")


def test_a_refusal_is_told_with_all_that_helps_to_find_it(told: Told) -> None:
    Audit().refused("invalid_credentials", "192.0.2.1", b"id-1", KEY.id, "wrong_secret")
    Audit().refused("missing_credentials", "192.0.2.1", b"id-2", None, None)
    assert told.fields() == [
        {
            "action": "refused",
            "code": code,
            "client": "192.0.2.1",
            "request_id": request_id,
            "key_id": key_id,
            "verdict": verdict,
        }
        for code, request_id, key_id, verdict in (
            ("invalid_credentials", "id-1", KEY.id, "wrong_secret"),
            ("missing_credentials", "id-2", None, None),
        )
    ]
    assert told.texts() == ["refused: invalid_credentials (wrong_secret)", "refused: missing_credentials"]


def test_what_was_not_told_is_summed_up_a_minute_later(told: Told) -> None:
    audit = Audit()
    wanted = [audit.wants("scope_denied", "192.0.2.1", 10.0) for _ in range(100)]
    assert wanted == [True] * TOLD + [False] * (100 - TOLD)
    audit.sum_up(11.0)
    assert not told.records()
    audit.sum_up(10.0 + WINDOW)
    audit.sum_up(10.0 + WINDOW)
    assert told.fields() == [
        {"action": "refused_more", "code": "scope_denied", "client": "192.0.2.1", "count": 100 - TOLD}
    ]
    assert told.texts() == ["refused 95 times more in a minute: scope_denied"]
