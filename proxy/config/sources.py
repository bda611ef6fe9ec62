"""What was written, and where: the TOML file and the environment, before anything is known to be right."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from proxy.config import later
from proxy.config.fault import Fault, near
from proxy.config.fields import EnvironmentText, kind, reason
from proxy.config.later import Option
from proxy.config.tables import Config

PREFIX = "OLLAMA_PROXY_"
CONFIG_VARIABLE = "OLLAMA_PROXY_CONFIG"

# Kubernetes sets these for a Service that is named ollama-proxy or ollama-proxy-something.
# Every process in the namespace finds them in its environment.
_SERVICE_LINK = re.compile(
    r"(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


@dataclass(frozen=True, slots=True)
class Written:
    """One value, and the place that a fault names."""

    place: str
    value: object


def options() -> dict[str, list[str]]:
    """The tables of this version and the keys of each."""
    return {
        name: list(field.annotation.model_fields)  # type: ignore[union-attr]
        for name, field in Config.model_fields.items()
    }


def known() -> set[Option]:
    """Every name that is not a mistake. For those of later versions there is a better fault."""
    return {(table, key) for table, keys in options().items() for key in keys} | later.names()


def read_file(file: Path) -> tuple[dict[Option, Written], list[Fault]] | Fault:
    """The values of a TOML file and the faults of its names; one fault alone where it is not readable."""
    try:
        tables = tomllib.loads(file.read_bytes().decode("utf-8"))
    except OSError as error:
        return Fault(
            str(file),
            f"the file cannot be read: {reason(error)}",
            f"name another with --config or {CONFIG_VARIABLE}",
        )
    except UnicodeDecodeError as error:
        return Fault(str(file), f"byte {error.start + 1} is not UTF-8", "save the file as UTF-8")
    except tomllib.TOMLDecodeError as error:  # says line and column
        return Fault(str(file), f"TOML syntax: {error}", "see https://toml.io/en/v1.0.0")
    except (ValueError, RecursionError):  # a number of thousands of digits, lists within lists within lists
        return Fault(
            str(file), "a value is too long or too deeply nested", "see config/config.toml for the options"
        )
    written: dict[Option, Written] = {}
    faults: list[Fault] = []
    names = known()
    for table, keys in tables.items():
        if table not in {table for table, _ in names}:
            faults.append(_unknown_table(f"{file}: {table}", table, keys))
        elif not isinstance(keys, dict):
            faults.append(Fault(f"{file}: {table}", f"this is {kind(keys)}, not a table", f"write [{table}]"))
        else:
            for key, value in keys.items():
                place = f"{file}: {table}.{key}"
                if (table, key) in names:
                    written[table, key] = Written(place, value)
                else:
                    right = near(key, options().get(table, []), f"[{table}] has")
                    faults.append(Fault(place, "unknown key", right))
    return written, faults


def _unknown_table(place: str, name: str, value: object) -> Fault:
    if isinstance(value, dict):
        return Fault(place, "unknown table", near(name, options(), "the tables are"))
    homes = [f"[{table}]" for table, keys in options().items() if name in keys]
    return Fault(place, "a key outside of the tables", f"put it below {' or '.join(homes or ['its table'])}")


def read_environment(environ: Mapping[str, str]) -> tuple[dict[Option, Written], list[Fault]]:
    """The values that stand in the environment, as text, and the faults of their names."""
    variables = {variable(*option): option for option in known()}
    written: dict[Option, Written] = {}
    faults: list[Fault] = []
    for name, text in sorted(environ.items()):
        if name in variables:
            written[variables[name]] = Written(name, EnvironmentText(text))
        elif name.startswith(PREFIX) and name != CONFIG_VARIABLE and not _is_service_link(name, text):
            ends = [one.removeprefix(PREFIX) for one in sorted(variables)]  # all begin alike
            close = get_close_matches(name.removeprefix(PREFIX).upper(), ends, n=1)
            right = (
                f"did you mean {PREFIX}{close[0]}?" if close else f"variables are named {PREFIX}TABLE__KEY"
            )
            faults.append(Fault(name, "unknown variable", right))
    return written, faults


def variable(table: str, key: str) -> str:
    """The environment variable of an option."""
    return f"{PREFIX}{table}__{key}".upper()


def _is_service_link(name: str, text: str) -> bool:
    rest = name.removeprefix(PREFIX)
    if "__" in rest or _SERVICE_LINK.fullmatch(rest) is None:
        return False
    return rest != "PORT" or "://" in text  # a number there is a person's mistake
