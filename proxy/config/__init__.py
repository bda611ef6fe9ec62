"""The configuration: read one TOML file and the environment, report every fault at once, freeze.

values    what the texts mean (durations, sizes, addresses, URLs); pure
fields    the types of the options
issuers   the tables [[auth.jwt]]; key_files is what their files must hold
tables    the tables, their options and defaults; warnings
later     options that have a name but no effect yet
sources   what was written where
checks    files, folders and listeners
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from proxy.config import checks, later
from proxy.config.checks import Finding
from proxy.config.fault import BadPartsError, BadValueError, ConfigError, Fault
from proxy.config.later import Option
from proxy.config.sources import CONFIG_VARIABLE, Written, read_environment, read_file
from proxy.config.tables import FILES, SELF_SIGNED_FILES, Config, Table
from proxy.config.values import parse_duration

__all__ = [
    "Config",
    "ConfigError",
    "file_to_read",
    "load",
    "parse_duration",
]

DEFAULT_FILE = Path("/etc/ollama-auth-proxy/config.toml")


def file_to_read(path: Path | None, environ: Mapping[str, str]) -> Path:
    """``path``, else that of the variable OLLAMA_PROXY_CONFIG, else /etc/ollama-auth-proxy/config.toml."""
    return path or Path(environ.get(CONFIG_VARIABLE) or DEFAULT_FILE)


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Read and check the configuration in the file that `file_to_read` names.

    Variables named OLLAMA_PROXY_TABLE__KEY go before the file. Relative paths start at the file's folder.

    Raises ConfigError with every fault.
    """
    file = file_to_read(path, environ)
    overrides, faults = read_environment(environ)
    from_file = read_file(file)
    if isinstance(from_file, Fault):
        # What the file would have said is unknown: only what the environment says can be judged.
        _, more = _build(overrides, file)
        places = {written.place for written in overrides.values()}
        mine = (fault for fault in more if fault.place.partition("[")[0] in places)
        raise ConfigError((from_file, *faults, *mine))
    written, file_faults = from_file
    config, more = _build(written | overrides, file)
    if config is None or file_faults or faults:
        raise ConfigError((*file_faults, *faults, *more))
    return config


def _build(written: Mapping[Option, Written], file: Path) -> tuple[Config | None, list[Fault]]:
    """The configuration, or None, and the faults; one fault a place, the first that is found."""
    faults: dict[str, Fault] = {}

    def report(findings: Iterable[Finding]) -> None:
        for (table, key), wrong, right, within in findings:
            at = written.get((table, key))
            place = (at.place if at else f"{file}: {table}.{key}") + within
            faults.setdefault(place, Fault(place, wrong, right))

    for option, one in written.items():
        refusal = later.refused(option, one.value)
        if refusal:
            report([Finding(option, *refusal)])

    values: dict[Option, object] = dict(FILES)
    mode = written["tls", "mode"].value if ("tls", "mode") in written else "self-signed"
    if mode == "self-signed":
        values |= SELF_SIGNED_FILES
    values |= {option: one.value for option, one in written.items() if option not in later.names()}
    if mode == "off":
        for option in SELF_SIGNED_FILES:
            values.pop(option, None)

    good: dict[str, Any] = {}
    for name, field in Config.model_fields.items():
        model: type[Table] = field.annotation  # type: ignore[assignment]
        keys = {key: value for (table, key), value in values.items() if table == name}
        try:
            good[name] = model.model_validate(keys, context={"folder": file.absolute().parent})
        except ValidationError as error:
            report(_findings(name, error))

    if "tls" in good:
        report(checks.check_tls(good["tls"]))
        report(checks.check_client_certificates(good["tls"]))
    if "auth" in good:
        report(checks.check_auth(good["auth"]))
    if "store" in good:
        report(checks.check_store(good["store"]))
    if "listen" in good and "ops" in good:
        report(checks.check_ops(good["ops"], good["listen"]))
    if "listen" in good and "upstream" in good:
        report(checks.check_upstream(good["upstream"], good["listen"]))
    return (None if faults else Config(**good)), list(faults.values())


def _findings(table: str, error: ValidationError) -> Iterable[Finding]:
    for one in error.errors(include_url=False):
        option = (table, str(one["loc"][0]))
        # What the types of the options raise, see fields.
        fault: BadValueError | BadPartsError = one["ctx"]["error"]
        parts = fault.faults if isinstance(fault, BadPartsError) else (("", fault),)
        for within, part in parts:
            yield Finding(option, part.wrong, part.right, within)
