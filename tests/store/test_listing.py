"""How a key is shown to people."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.identity.api_keys import Secret, issue, issue_ssh
from proxy.identity.limits import NAMES, limits_from
from proxy.store.listing import details, limits_in_words, rights, table

NOW = 1_800_000_000.0
KEY = replace(issue("laptop", NOW)[1], id="0000000000")


def test_all_of_a_key_is_told() -> None:
    key = replace(
        KEY,
        scopes=frozenset({"read", "push"}),
        models=("llama3.2", "hf.co/acme/*"),
        cloud=True,
        limits={"max_context": 8192, "max_keep_alive": 5400},
        expires=NOW + 86_400,
        last_used=NOW + 60,
        secrets=(Secret(bytes(32), NOW + 3600), Secret(bytes(31) + b"1"), Secret(bytes(31) + b"2", NOW)),
    )
    assert details(key, NOW).splitlines() == [
        "id          0000000000",
        "name        laptop",
        "kind        api_key",
        "scopes      push,read",
        "models      llama3.2, hf.co/acme/*",
        "cloud       yes",
        "limit       context of at most 8192 tokens",
        "limit       keep_alive of at most 90m",
        "created     2027-01-15T08:00:00Z",
        "expires     2027-01-16T08:00:00Z",
        "last used   2027-01-15T08:01:00Z",
        "revoked     no",
        "state       active",
        "old secret  holds until 2027-01-15T09:00:00Z",
    ]


def test_a_key_that_may_nothing_says_so() -> None:
    shown = details(replace(KEY, scopes=frozenset(), models=()), NOW).splitlines()
    assert "scopes     none" in shown
    assert "models     none" in shown
    assert "none" in table([replace(KEY, scopes=frozenset(), models=())], NOW).splitlines()[1]


def test_an_ssh_key_shows_its_fingerprint_and_an_api_key_nothing_of_its_hash() -> None:
    key = issue_ssh("desk", b"a public key", NOW)
    assert "fingerprint  SHA256:" in details(key, NOW)
    assert "SHA256" not in details(KEY, NOW)
    assert KEY.secrets[0].digest.hex() not in details(KEY, NOW)


def test_every_limit_has_its_phrase() -> None:
    phrases = limits_in_words(limits_from(dict.fromkeys(NAMES, 3600)))
    assert phrases == [
        "context of at most 3600 tokens",
        "answers of at most 3600 tokens",
        "keep_alive of at least 1h",
        "keep_alive of at most 1h",
    ]
    assert limits_in_words(limits_from({})) == []


@pytest.mark.parametrize(
    ("seconds", "shown"), [(1, "1s"), (60, "1m"), (90, "90s"), (3600, "1h"), (5400, "90m"), (172_800, "2d")]
)
def test_a_span_is_told_as_it_can_be_typed(seconds: int, shown: str) -> None:
    assert limits_in_words(limits_from({"max_keep_alive": seconds})) == [f"keep_alive of at most {shown}"]


def test_many_models_do_not_break_the_table() -> None:
    many = replace(KEY, models=tuple(f"model-{number}:*" for number in range(50)))
    heading, line = table([many], NOW).splitlines()
    assert len(line) < 200
    assert line.index(" no ") > heading.index("MODELS")
    assert "model-49:*" in details(many, NOW)


def test_rights_are_told_in_one_line() -> None:
    assert rights(KEY) == "scopes: inference,read; models: all; cloud: no; expires: never"
    key = replace(KEY, models=("a",), limits={"max_context": 2}, expires=NOW)
    assert rights(key) == (
        "scopes: inference,read; models: a; cloud: no; context of at most 2 tokens; "
        "expires: 2027-01-15T08:00:00Z"
    )
