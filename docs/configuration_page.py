"""docs/configuration.md: the options from proxy/config, their explanations from config/config.toml."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from markdown import NOTICE, filled, table

from proxy.config import fields, later
from proxy.config.changes import NEED_A_RESTART
from proxy.config.fault import BadValueError
from proxy.config.fields import kind
from proxy.config.issuers import IssuersField, JwtTable
from proxy.config.sources import PREFIX
from proxy.config.tables import Config, Table

EXPLAINED = Path(__file__).parents[1] / "config" / "config.toml"

TYPES: Mapping[object, str] = {
    fields.AddressField: "address",
    fields.DurationField: "duration",
    fields.DrainField: "duration",
    fields.RetentionField: "duration",
    fields.HeaderSizeField: "size",
    fields.GuardedBodyField: "size",
    fields.UpstreamField: "URL",
    fields.OriginsField: "list of origins",
    fields.NetworksField: "list of networks",
    fields.RoutesField: "list of routes",
    fields.FlagField: "flag",
    fields.PathField: "file",
    fields.TokenFileField: "file",
    fields.StoreUrlField: "URL",
}

RESTART = "after a restart"
AT_ONCE = "at once"
ONLY_SOMETIMES = {"tls.mode": 'at once; to or from `"off"` after a restart'}


class Option(NamedTuple):
    """``default`` as TOML; ``explanation`` as it stands in config/config.toml, without its comment signs."""

    name: str
    default: str
    explanation: str


def explained() -> tuple[dict[str, list[Option]], list[Option], str]:
    """The options of each table, those of [[auth.jwt]], and what is said of that table as a whole."""
    tables: dict[str, list[Option]] = {}
    issuer: list[Option] = []
    about_issuers = ""
    options: list[Option] = []
    lines: list[str] = []
    for line in EXPLAINED.read_text("utf-8").splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            options, lines = tables.setdefault(heading[1], []), []
        elif default := re.fullmatch(r"#( {3})? ?([a-z_]+) = (.+)", line):
            place = issuer if default[1] else options
            place.append(Option(default[2], default[3], "\n".join(lines)))
            lines = []
        elif re.fullmatch(r"# {3}\[\[auth\.jwt\]\]", line):
            about_issuers, lines = "\n".join(lines), []
        elif line.startswith("#   # "):
            lines.append(line.removeprefix("#   # "))
        elif line.startswith("# "):
            lines.append(line.removeprefix("# "))
        elif not line:
            lines = []
    return tables, issuer, about_issuers


def type_of(hint: Any) -> str:
    """What is written for an option, by the annotation of its field."""
    for known, name in TYPES.items():
        if hint == known:
            return name
    inner, *metadata = get_args(hint)
    if get_origin(inner) is Literal:
        return "one of " + ", ".join(f'`"{choice}"`' for choice in get_args(inner))
    if inner is int:
        return number_range(metadata[0])
    if get_origin(inner) is frozenset:
        return "list of texts"
    if inner in (str, NoneType):
        return "text"
    if inner is float:
        return "duration"
    raise ValueError(f"no name for the type {hint}")


def number_range(validator: Any) -> str:
    """What the validator itself says of the numbers that it takes."""
    try:
        validator.func("")
    except BadValueError as fault:
        low, high = re.findall(r"\d+", fault.right)
        return f"number, {int(low):,} to {int(high):,}"
    raise ValueError(f"{kind('')} is taken for a number")


def rows(table_name: str, model: type[Any], options: list[Option]) -> Iterator[tuple[str, ...]]:
    hints = get_type_hints(model, include_extras=True)
    for option in options:
        full = f"{table_name}.{option.name}"
        when = ONLY_SOMETIMES.get(full, RESTART if full in NEED_A_RESTART else AT_ONCE)
        variable = f"{PREFIX}{table_name}__{option.name}".upper()
        yield (
            f"`{option.name}`",
            type_of(hints[option.name]),
            f"`{option.default}`",
            f"`{variable}`",
            when,
        )


def explanations(table_name: str, options: list[Option]) -> str:
    return "".join(
        f"### {table_name}.{option.name}\n\n{markdown_of(option.explanation)}\n" for option in options
    )


def markdown_of(comment: str) -> str:
    """A comment as Markdown: lines that begin with a value in quotes and a colon become a list."""
    comment = re.sub(r"(?<![\w/])([a-z-]+\.toml)\b", r"[\1](../config/\1)", comment)
    is_list = len(re.findall(r'^"[a-z-]+": ', comment, re.MULTILINE)) > 1
    blocks: list[tuple[bool, list[str]]] = []  # whether it is an item of the list, and its lines
    for line in comment.splitlines():
        value = re.fullmatch(r'("[a-z-]+"): *(.+)', line) if is_list else None
        if value:
            blocks.append((True, [f"- `{value[1]}`: {value[2]}"]))
        elif blocks and (line.startswith(" ") or not blocks[-1][0]):
            blocks[-1][1].append(line.strip())
        else:
            blocks.append((False, [line]))
    text = ""
    for number, (item, lines) in enumerate(blocks):
        apart = "\n" if number and not (item and blocks[number - 1][0]) else ""
        text += apart + filled(" ".join(lines), "  " if item else "")
    return text


def configuration_page() -> str:
    tables, issuer, about_issuers = explained()
    models: dict[str, type[Table]] = {}
    for name, field in Config.model_fields.items():
        assert isinstance(field.annotation, type)
        models[name] = field.annotation
    missing = {
        (name, key)
        for name, model in models.items()
        for key, hint in get_type_hints(model, include_extras=True).items()
        if key in model.model_fields and hint != IssuersField
    } ^ {(name, option.name) for name, options in tables.items() for option in options}
    if missing:
        raise ValueError(f"config/config.toml does not fit proxy/config/tables.py: {sorted(missing)}")
    if [option.name for option in issuer] != list(JwtTable.model_fields):
        raise ValueError("config/config.toml does not fit proxy/config/issuers.py")

    headings = ("option", "type", "default", "environment", "a change counts")
    parts = [
        f"## [{name}]\n\n{table(headings, rows(name, models[name], options))}\n{explanations(name, options)}"
        for name, options in tables.items()
    ]
    hints = get_type_hints(JwtTable, include_extras=True)
    values = {"issuer": "must be set", "audience": "must be set"}
    of_issuer = [
        (
            f"`{option.name}`",
            "text or list of texts" if option.name == "audience" else type_of(hints[option.name]),
            values.get(option.name) or ("`false`" if option.name == "discovery" else f"`{option.default}`"),
        )
        for option in issuer
    ]
    about = markdown_of(re.sub(r'This example.*?"#   "\.\n', "", about_issuers, flags=re.DOTALL))
    later_rows = [
        (f"`{name}.{key}`", str((later.refused((name, key), object()) or ("", ""))[1]))
        for name, key in sorted(later.names())
    ]
    return f"""{NOTICE}
# Configuration

Every option of this version. [config/config.toml](../config/config.toml) is the same as a file to start
from. What stands here is taken from it ("this file" below) and from `proxy/config/tables.py`.

- **Which file.** The one that `--config` names, else `OLLAMA_PROXY_CONFIG`, else
  `/etc/ollama-auth-proxy/config.toml`.
- **Environment.** A variable `OLLAMA_PROXY_<TABLE>__<KEY>` goes before the file. Lists are JSON there, or
  texts with commas between them. It is read at the start: only files can be changed while the proxy runs.
- **Durations** are a whole number and `ms`, `s`, `m`, `h` or `d`; **sizes** a whole number and `B`, `KiB`,
  `MiB` or `GiB`; **addresses** `HOST:PORT`, an IPv6 host in brackets.
- **Files** are named relative to the folder of the configuration. Secrets stand in files of their own.
- **Faults.** An unknown name is one. All are told at once, each with its place, what is wrong and what would
  be right.
- **Changes.** A running proxy reads the file again on SIGHUP, and within 6 seconds of a change to it, or to a
  certificate, a key or a token file that it names. Requests in flight go on under what they began with. A
  configuration with a fault is refused whole, and the old one stays; the log and
  `ollama_proxy_config_reload_success` say so. What needs a restart keeps its old value, and the log names it.

```sh
ollama-auth-proxy check-config --config config/config.toml
```

{"".join(parts)}## [[auth.jwt]]

{about}
A change counts at once. Keys of issuers that stay are kept, and files with keys follow themselves.

{table(("option", "type", "default"), of_issuer)}
{explanations("auth.jwt", issuer)}
## Options of later versions

These have a name already and no effect yet. A value that asks for more than what happens anyway is a fault,
so that nobody relies on it:

{table(("option", "what to do"), later_rows)}"""
