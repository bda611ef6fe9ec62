"""The types of the options: how a value of the file or of the environment becomes what the code uses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import PlainValidator, ValidationInfo

from proxy.config.fault import BadValueError
from proxy.config.values import (
    Address,
    Network,
    UpstreamUrl,
    parse_address,
    parse_duration,
    parse_network,
    parse_origin,
    parse_route,
    parse_size,
    parse_upstream_url,
    shown,
)

T = TypeVar("T")


class EnvironmentText(str):
    """A value from the environment, where numbers, flags and lists are text too."""


def kind(value: object) -> str:
    """What a TOML value is, for a fault about its type."""
    match value:
        case bool():
            return "a flag"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "a table"
        case None:  # in JSON
            return "null"
        case _:
            return "a date or a time"


def reason(error: OSError) -> str:
    """Why a file could not be used, in the words of the operating system."""
    return (error.strerror or "unknown error").lower()


def _text(value: object, right: str) -> str:
    if not isinstance(value, str):
        raise BadValueError(f"this is {kind(value)}, not text", right)
    return str(value)


def text_of(parse: Callable[[str], object], example: str) -> PlainValidator:
    return PlainValidator(lambda value: parse(_text(value, f"write text, for example {example}")))


def list_of(parse: Callable[[str], T], collect: Callable[[Iterable[T]], object]) -> PlainValidator:
    """A TOML list of texts; in the environment a JSON list or texts with commas between them."""

    def read(value: object) -> object:
        right = "write a list of texts in brackets"
        if isinstance(value, EnvironmentText):
            right = "write a JSON list, or texts with commas between them"
            try:
                value = json.loads(value) if value.lstrip().startswith("[") else _split(value)
            except (ValueError, RecursionError):
                raise BadValueError("this is not valid JSON", right) from None
        return collect(_items(value, parse, right))

    return PlainValidator(read)


def one_or_list_of(parse: Callable[[str], T], collect: Callable[[Iterable[T]], object]) -> PlainValidator:
    """The same, or one text alone."""
    right = "write text, or a list of texts in brackets"
    return PlainValidator(
        lambda value: collect(_items([value] if isinstance(value, str) else value, parse, right))
    )


def some(items: Iterable[str]) -> frozenset[str]:
    """All of them, for a list that must not be empty."""
    found = frozenset(items)
    if not found:
        raise BadValueError("the list is empty", "write one at least")
    return found


def _items(value: object, parse: Callable[[str], T], right: str) -> list[T]:
    if not isinstance(value, list):
        raise BadValueError(f"this is {kind(value)}, not a list", right)
    good: list[T] = []
    bad: list[BadValueError] = []
    for item in value:
        try:
            good.append(parse(_text(item, right)))
        except BadValueError as fault:
            bad.append(fault)
    if bad:
        rights = dict.fromkeys(fault.right for fault in bad)
        raise BadValueError(", ".join(fault.wrong for fault in bad), ", ".join(rights))
    return good


def _split(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def whole_number(low: int, high: int) -> PlainValidator:
    right = f"write a whole number from {low} to {high}"

    def read(value: object) -> int:
        if isinstance(value, EnvironmentText) and value.isascii() and value.isdigit() and len(value) < 20:
            value = int(value)
        if type(value) is not int:
            raise BadValueError(f"this is {kind(value)}, not a whole number", right)
        if not low <= value <= high:
            raise BadValueError(f"{value if abs(value) < 10**20 else 'this'} is out of range", right)
        return value

    return PlainValidator(read)


def one_of(*choices: str) -> PlainValidator:
    right = f"write {', '.join(map(shown, choices[:-1]))} or {shown(choices[-1])}"

    def read(value: object) -> str:
        text = _text(value, right)
        if text not in choices:
            raise BadValueError(f"{shown(text)} is not one of the choices", right)
        return text

    return PlainValidator(read)


def _flag(value: object) -> bool:
    if isinstance(value, EnvironmentText) and value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise BadValueError(f"this is {kind(value)}, not a flag", "write true or false")
    return value


def _some_duration(text: str) -> float:
    seconds = parse_duration(text)
    if seconds == 0:
        raise BadValueError(f"{shown(text)} leaves no time at all", "write 1ms or more")
    return seconds


def _retention(text: str) -> float:
    seconds = parse_duration(text)
    if 0 < seconds < 3600:
        raise BadValueError(f"{shown(text)} is less than an hour", 'write "400d", or "0s" to keep all')
    return seconds


def _size_between(low: str, high: str) -> Callable[[str], int]:
    def parse(text: str) -> int:
        size = parse_size(text)
        if not parse_size(low) <= size <= parse_size(high):
            raise BadValueError(f"{shown(text)} is out of range", f"write a size from {low} to {high}")
        return size

    return parse


def _folder(info: ValidationInfo) -> Path:
    """The folder of the configuration, where relative paths start."""
    folder: Path = (info.context or {})["folder"]
    return folder


def _path(value: object, info: ValidationInfo) -> Path | None:
    """A path, where a relative one starts at the folder of the configuration; empty text is none."""
    text = _text(value, "write the path of a file in quotes")
    if "\0" in text:
        raise BadValueError("the path holds a NUL character", "write the path of a file in quotes")
    if "\n" in text or "-----BEGIN" in text:  # maybe a private key: no fault may repeat it
        raise BadValueError("this is what stands in a file, not the path of one", "write the path in quotes")
    return _folder(info) / text if text else None


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A secret that stands in a file, and what the file said. The secret is not in the repr."""

    path: Path
    token: str = field(repr=False)


def _token_file(value: object, info: ValidationInfo) -> TokenFile | None:
    """No fault repeats the value: people write the token itself where its file is asked for."""
    path = _path(value, info)
    if path is None:
        return None
    right = "name a file that the proxy may read and that holds the token, alone"
    try:
        with path.open("rb") as file:
            content = file.read(4097)
    except OSError as error:
        raise BadValueError(f"the file cannot be read: {reason(error)}", right) from None
    token = content.strip().decode("latin-1")
    if not token or len(content) > 4096 or not all("!" <= character <= "~" for character in token):
        wrong = "the file does not hold a token: one word of ASCII characters, 4096 at most"
        raise BadValueError(wrong, "make one with: openssl rand -hex 32")
    return TokenFile(path, token)


def _store_url(value: object, info: ValidationInfo) -> Path:
    """The file that the URL names. No fault repeats the URL: one of a database may hold a password."""
    right = 'write "sqlite:///data/ollama-auth-proxy.db" (relative) or "sqlite:////var/lib/…" (absolute)'
    text = _text(value, right)
    scheme, slashes, name = text.partition(":///")
    if scheme != "sqlite" or not slashes:
        raise BadValueError("the URL does not begin with sqlite:///", right)
    if name in ("", "/", ":memory:") or name.endswith("/") or set(name) & {"?", "#", "\0"}:
        raise BadValueError("the URL does not name a file", right)
    return _folder(info) / name


AddressField = Annotated[Address, text_of(parse_address, '"127.0.0.1:9464"')]
DurationField = Annotated[float, text_of(_some_duration, '"10s"')]
DrainField = Annotated[float, text_of(parse_duration, '"5m"')]
HeaderSizeField = Annotated[int, text_of(_size_between("1KiB", "1MiB"), '"32KiB"')]
GuardedBodyField = Annotated[int, text_of(_size_between("64KiB", "1GiB"), '"64MiB"')]
UpstreamField = Annotated[UpstreamUrl, text_of(parse_upstream_url, '"http://127.0.0.1:11434"')]
RetentionField = Annotated[float, text_of(_retention, '"400d"')]
OriginsField = Annotated[tuple[str, ...], list_of(parse_origin, tuple)]
NetworksField = Annotated[tuple[Network, ...], list_of(parse_network, tuple)]
RoutesField = Annotated[frozenset[tuple[str, str]], list_of(parse_route, frozenset)]
FlagField = Annotated[bool, PlainValidator(_flag)]
PathField = Annotated[Path | None, PlainValidator(_path)]
TokenFileField = Annotated[TokenFile | None, PlainValidator(_token_file)]
StoreUrlField = Annotated[Path, PlainValidator(_store_url)]
