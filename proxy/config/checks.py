"""What only the machine, or a look at two options at once, can tell to be wrong."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from proxy.config.later import Option
from proxy.config.tables import Auth, Listen, Ops, Store, Tls, Upstream
from proxy.config.values import Address
from proxy.tls import check_client_ca, check_pair, check_self_signed


class Finding(NamedTuple):
    """A fault of an option, before its place is known; ``within`` leads on to a part of its value."""

    option: Option
    wrong: str
    right: str
    within: str = ""


def check_client_certificates(tls: Tls) -> Iterator[Finding]:
    """Who signs them is told where they are asked for, and nowhere else."""
    ca, auth = ("tls", "client_ca"), ("tls", "client_auth")
    if tls.client_auth != "none" and tls.mode == "off":
        right = 'write client_auth = "none", or another mode'
        yield Finding(auth, "without TLS no client shows a certificate", right)
    if tls.client_auth != "none" and tls.client_ca is None:
        right = (
            'name the PEM file of the authority that signs those of clients, or write client_auth = "none"'
        )
        yield Finding(ca, "this is missing", right)
    if tls.client_ca is not None and tls.client_auth == "none":
        right = 'write client_auth = "optional" or "required", or remove this'
        yield Finding(ca, "no client is asked for a certificate", right)
    if tls.client_ca is not None:
        for problem in check_client_ca(tls.client_ca):
            yield Finding(ca, problem.wrong, problem.right)


def check_tls(tls: Tls) -> Iterator[Finding]:
    """The certificate and its key: there, readable, and one pair."""
    if tls.mode == "off":
        return
    missing = [key for key in ("certificate", "private_key") if getattr(tls, key) is None]
    for key in missing:
        right = f'name the PEM file of the {key.replace("_", " ")}, or write mode = "self-signed"'
        yield Finding(("tls", key), "this is missing", right)
    if tls.certificate is None or tls.private_key is None:
        return
    check = check_self_signed if tls.mode == "self-signed" else check_pair
    for problem in check(tls.certificate, tls.private_key):
        yield Finding(("tls", problem.of), problem.wrong, problem.right)
    if tls.mode == "self-signed":
        for option, file in (
            (("tls", "certificate"), tls.certificate),
            (("tls", "private_key"), tls.private_key),
        ):
            yield from _check_folder(option, file)


def check_store(store: Store) -> Iterator[Finding]:
    """A file that can be written, in a folder that can be written: SQLite keeps its journal beside it."""
    option = ("store", "url")
    try:
        status = store.path.stat()
    except OSError:
        pass  # not there yet, or not to be reached: the folder tells
    else:
        if not stat.S_ISREG(status.st_mode):
            yield Finding(option, f"{store.path} is not a file", "name a file; it is made when it is missing")
            return
        if not _may_write(store.path):
            yield Finding(
                option, f"{store.path} cannot be written", "let the user of the proxy write the file"
            )
            return
    yield from _check_folder(option, store.path)


def _check_folder(option: Option, file: Path) -> Iterator[Finding]:
    """The folder of a file that the proxy writes. A missing one it makes, but not that one's parent."""
    right = "let the user of the proxy write there, or name another place"
    folder = file.parent
    if not os.path.exists(folder):  # Path.exists raises where a folder above is closed to us
        folder = folder.parent
    if not os.path.exists(folder):
        yield Finding(option, f"the folder {folder} does not exist", "create it, or name another place")
    elif not os.path.isdir(folder):
        yield Finding(option, f"{folder} is not a folder", right)
    elif not _may_write(folder):
        yield Finding(option, f"the folder {folder} cannot be written", right)


def _may_write(path: Path) -> bool:
    mode = os.R_OK | os.W_OK | (os.X_OK if os.path.isdir(path) else 0)
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def check_auth(auth: Auth) -> Iterator[Finding]:
    """A key in the path is an API key."""
    if auth.path_keys and not auth.api_keys:
        yield Finding(
            ("auth", "path_keys"),
            "no key is accepted in the path, as auth.api_keys is false",
            "write path_keys = false, or api_keys = true",
        )


def check_ops(ops: Ops, listen: Listen) -> Iterator[Finding]:
    """Two listeners need two addresses."""
    if _overlap(ops.address, listen.address):
        wrong = f"{ops.address} is taken by listen.address, {listen.address}"
        yield Finding(("ops", "address"), wrong, "write another port")


def check_upstream(upstream: Upstream, listen: Listen) -> Iterator[Finding]:
    """A proxy in front of itself would answer no request and use up its connections."""
    if _overlap(Address(upstream.url.host, upstream.url.port), listen.address):
        wrong = f"this is the proxy's own listen.address, {listen.address}"
        yield Finding(
            ("upstream", "url"), wrong, "write where Ollama listens, for example http://127.0.0.1:11434"
        )


def _overlap(one: Address, other: Address) -> bool:
    if one.port != other.port or one.port == 0:
        return False
    hosts = {_known(one.host), _known(other.host)}
    if len(hosts) == 1:
        return True
    versions = {":" in host for host in hosts}
    return len(versions) == 1 and bool(hosts & {"0.0.0.0", "::"})


def _known(host: str) -> str:
    """One spelling for each address."""
    try:
        return str(ip_address(host))
    except ValueError:
        return "127.0.0.1" if host.lower() == "localhost" else host.lower()
