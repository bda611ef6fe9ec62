"""The tables ``[[auth.jwt]]``: who may issue JWTs. Every fault of every table is told at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, PlainValidator, ValidationError, ValidationInfo

from proxy.config.fault import BadPartsError, BadValueError, near
from proxy.config.fields import (
    EnvironmentText,
    FlagField,
    PathField,
    kind,
    list_of,
    one_or_list_of,
    some,
    text_of,
)
from proxy.config.key_files import (
    check_authorities,
    jwks_algorithms,
    public_key_algorithms,
    secret_algorithms,
)
from proxy.config.values import (
    HMAC,
    parse_algorithm,
    parse_audience,
    parse_issuer,
    parse_jwks_url,
    parse_leeway,
    parse_token_scope,
)
from proxy.identity.issuer import Issuer

Faults = Iterator[tuple[str, BadValueError]]  # by the key of the table; by none, the table itself

SOURCES = ("jwks_url", "discovery", "jwks_file", "public_key_file", "secret_file")
_Claim = Annotated[str, text_of(str, '"scope"')]


class JwtTable(BaseModel):
    """What may stand in one table. ``issuer`` and ``audience`` must."""

    issuer: Annotated[str, text_of(parse_issuer, '"https://id.example.com/realm"')] = ""
    audience: Annotated[frozenset[str], one_or_list_of(parse_audience, some)] = frozenset()
    algorithms: Annotated[frozenset[str], list_of(parse_algorithm, some)] = frozenset({"RS256"})
    discovery: FlagField = False
    jwks_url: Annotated[str, text_of(parse_jwks_url, '"https://id.example.com/jwks"')] = ""
    jwks_file: PathField = None
    public_key_file: PathField = None
    secret_file: PathField = None
    ca_file: PathField = None
    scope_claim: _Claim = "scope"
    models_claim: _Claim = ""
    cloud_claim: _Claim = ""
    limits_claim: _Claim = ""
    name_claim: _Claim = "sub"
    default_scopes: Annotated[frozenset[str], list_of(parse_token_scope, frozenset)] = frozenset()
    leeway: Annotated[float, text_of(parse_leeway, '"30s"')] = 30.0


def _read(value: object, info: ValidationInfo) -> tuple[Issuer, ...]:
    right = "write a table [[auth.jwt]] for each issuer"
    if isinstance(value, EnvironmentText):
        right = "write a JSON list with an object for each issuer"
        try:
            value = json.loads(value) if value.strip() else []
        except (ValueError, RecursionError):
            raise BadValueError("this is not valid JSON", right) from None
    if not isinstance(value, list):
        raise BadValueError(f"this is {kind(value)}, not a list", right)
    faults: list[tuple[str, BadValueError]] = []
    issuers: dict[str, Issuer] = {}
    for number, written in enumerate(value):
        if not isinstance(written, dict):
            faults.append((f"[{number}]", BadValueError(f"this is {kind(written)}, not a table", right)))
            continue
        table, found = _read_table(written, info)
        found += _judge(table, {key for key, _ in found})
        if table.issuer in issuers:
            wrong = "a table above has the same issuer"
            found.append(("issuer", BadValueError(wrong, "write one table for each issuer")))
        faults += [(f"[{number}].{key}" if key else f"[{number}]", fault) for key, fault in found]
        if table.issuer:
            issuers[table.issuer] = _issuer(table)
    if faults:
        raise BadPartsError(tuple(faults))
    return tuple(issuers.values())


def _read_table(
    written: Mapping[str, object], info: ValidationInfo
) -> tuple[JwtTable, list[tuple[str, BadValueError]]]:
    """What is good in a table, and the faults of the rest."""
    names = JwtTable.model_fields
    faults = [
        (key, BadValueError("unknown key", near(key, names, "[[auth.jwt]] has")))
        for key in written
        if key not in names
    ]
    values = {key: value for key, value in written.items() if key in names}
    try:
        return JwtTable.model_validate(values, context=info.context), faults
    except ValidationError as error:
        for one in error.errors(include_url=False):
            faults.append((str(one["loc"][0]), one["ctx"]["error"]))
    bad = {key for key, _ in faults}
    values = {key: value for key, value in values.items() if key not in bad}
    return JwtTable.model_validate(values, context=info.context), faults


def _judge(table: JwtTable, bad: Collection[str]) -> Faults:
    """What only a look at several values, or at the files, can tell to be wrong."""
    if not table.issuer and "issuer" not in bad:
        yield "issuer", BadValueError("this is missing", "write what the tokens have in iss")
    if not table.audience and "audience" not in bad:
        yield "audience", BadValueError("this is missing", "write what the tokens have in aud")
    sources = [key for key in SOURCES if key in bad or getattr(table, key)]
    if not sources:
        right = "write jwks_url, discovery = true, jwks_file, public_key_file or secret_file"
        yield "", BadValueError("nothing says which keys the tokens are signed by", right)
    if len(sources) > 1:
        wrong = f"{' and '.join(sources)} each say which keys the tokens are signed by"
        yield "", BadValueError(wrong, "keep one of them")
    if "algorithms" not in bad:
        yield from _judge_algorithms(table.algorithms, sources)
    yield from _judge_files(table, bad)


def _judge_algorithms(algorithms: frozenset[str], sources: list[str]) -> Faults:
    """Whoever knows a public key could sign with it, if it were taken for a shared secret."""
    shared = ", ".join(sorted(algorithms.intersection(HMAC)))
    public = ", ".join(sorted(algorithms.difference(HMAC)))
    if shared and public:
        wrong = f"{shared} is for shared secrets and {public} for public keys"
        yield "algorithms", BadValueError(wrong, "write what the issuer signs with")
    elif public and sources == ["secret_file"]:
        wrong = f"{public} needs a public key, and secret_file holds a shared secret"
        yield "algorithms", BadValueError(wrong, 'write ["HS256"]')
    elif shared and sources and "secret_file" not in sources:
        wrong = f"{shared} needs a shared secret, and {' and '.join(sources)} gives public keys"
        yield "algorithms", BadValueError(wrong, 'write what the issuer signs with, for example ["RS256"]')


def _judge_files(table: JwtTable, bad: Collection[str]) -> Faults:
    checks: dict[str, Callable[[Path], frozenset[str]]] = {
        "jwks_file": jwks_algorithms,
        "public_key_file": public_key_algorithms,
        "secret_file": secret_algorithms,
    }
    for key, algorithms_of in checks.items():
        file: Path | None = getattr(table, key)
        if file is None:
            continue
        try:
            fitting = algorithms_of(file)
        except BadValueError as fault:
            yield key, fault
        else:
            if "algorithms" not in bad:
                yield from _judge_fit(table.algorithms, fitting, key)
    if table.ca_file is not None:
        try:
            check_authorities(table.ca_file)
        except BadValueError as fault:
            yield "ca_file", fault
        if not table.jwks_url and not table.discovery:
            yield "ca_file", BadValueError("no keys are fetched from this issuer", "remove this")


def _judge_fit(algorithms: frozenset[str], fitting: frozenset[str], key: str) -> Faults:
    """Of a set some key must fit; a secret must be long enough for every algorithm (RFC 7518 section 3.2)."""
    short = ", ".join(sorted(algorithms.intersection(HMAC) - fitting))
    if key == "secret_file" and short:
        right = "make a longer one with: openssl rand -hex 64"
        yield key, BadValueError(f"the secret is too short for {short}", right)
    elif key != "secret_file" and not algorithms & fitting:
        names = ", ".join(sorted(algorithms))
        wrong = f"no key in {key} fits {names}"
        yield "algorithms", BadValueError(wrong, f"write {json.dumps(sorted(fitting))}")


def _issuer(table: JwtTable) -> Issuer:
    values = dict(table)
    return Issuer(audiences=values.pop("audience"), **values)


IssuersField = Annotated[tuple[Issuer, ...], PlainValidator(_read)]
