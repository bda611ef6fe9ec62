"""Options that have a name already and no effect yet. They must not be accepted as if they had one.

A value that asks for what happens anyway is accepted and ignored. Whoever builds an option takes its row
out of here and puts the option into tables.py.
"""

from __future__ import annotations

from proxy.config.fields import EnvironmentText

Option = tuple[str, str]

_REMOVE = "remove it"
_NO_LIMIT = "set it to 0 or remove it; no key is limited yet"

# What happens anyway, and what to do about any other value.
_OPTIONS: dict[Option, tuple[tuple[object, ...], str]] = {
    ("upstream", "server"): ((), "name one server in upstream.url"),
    ("store", "counters"): (("memory",), 'write "memory" or remove it'),
    ("limits", "requests_per_minute"): ((0,), _NO_LIMIT),
    ("limits", "tokens_per_day"): ((0,), _NO_LIMIT),
    ("limits", "concurrent"): ((0,), _NO_LIMIT),
    ("queue", "slots"): ((0,), "write 0 or remove it; no request waits in the proxy yet"),
    ("queue", "max_waiting"): ((), _REMOVE),
    ("queue", "max_wait"): ((), _REMOVE),
}

# What options of this version will be able to say: how such a value begins.
_VALUES: dict[Option, tuple[tuple[str, ...], str, str]] = {
    ("tls", "mode"): (("acme",), 'mode "acme"', 'write "files" and let an ACME client renew them'),
    ("store", "url"): (
        ("postgres:", "postgresql:", "postgresql+"),
        "PostgreSQL",
        'write a sqlite URL, for example "sqlite:///data/ollama-auth-proxy.db"',
    ),
}


def names() -> frozenset[Option]:
    return frozenset(_OPTIONS)


def refused(option: Option, value: object) -> tuple[str, str] | None:
    """What is wrong and what would be right, if the value asks for something of a later version."""
    if option in _OPTIONS:
        accepted, right = _OPTIONS[option]
        return None if any(_same(value, one) for one in accepted) else ("this is not in this version", right)
    if option in _VALUES:
        beginnings, what, right = _VALUES[option]
        if isinstance(value, str) and value.startswith(beginnings):
            return f"{what} is not in this version", right
    return None


def _same(value: object, accepted: object) -> bool:
    if isinstance(value, EnvironmentText):
        return value in ("", "[]") if accepted == [] else value == str(accepted).lower()
    return type(value) is type(accepted) and value == accepted
