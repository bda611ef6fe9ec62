"""Who may read and write the files of the proxy, by their modes and owners."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from proxy.config import Config
from proxy.doctor.findings import Finding, error, note, ok, warning

ROOT = 0


class File(NamedTuple):
    """A file or folder as its option names it; ``secret`` says that others must not read it."""

    option: str
    path: str
    mode: int
    owner: int
    secret: bool


def judge(files: list[File], user: int) -> list[Finding]:
    """``user`` is who the proxy runs as."""
    found = [finding for file in files for finding in _judge_one(file, user)]
    return found or [ok("file_modes", f"{len(files)} files and folders are for their owners alone to change")]


def _judge_one(file: File, user: int) -> Iterator[Finding]:
    name = f"{file.option}, {file.path},"
    mode = f"(mode {stat.S_IMODE(file.mode):04o})"
    folder = stat.S_ISDIR(file.mode)
    if file.mode & stat.S_IWOTH:
        change = "its files can be replaced" if folder else "it can be changed"
        yield error(
            "file_writable_by_others",
            f"{name} is writable by every user of the machine {mode}: {change}",
            f"chmod o-w {file.path}",
        )
    elif file.mode & stat.S_IWGRP:
        yield warning(
            "file_writable_by_group", f"{name} is writable by its group {mode}", f"chmod g-w {file.path}"
        )
    if file.secret and not folder:
        if file.mode & stat.S_IROTH:
            yield error(
                "file_readable_by_others",
                f"{name} is readable by every user of the machine {mode}, and it is secret",
                f"chmod o-rwx {file.path}; if strangers were on this machine, replace what is in it too",
            )
        elif file.mode & stat.S_IRGRP:
            yield note(
                "file_readable_by_group",
                f"{name} is readable by its group {mode}, and it is secret",
                f"where only the proxy is in that group all is well, else chmod g-rwx {file.path}",
            )
    if file.owner not in (user, ROOT):
        yield warning(
            "file_of_another_user",
            f"{name} belongs to {_user_name(file.owner)}, who can change it; the proxy runs as "
            f"{_user_name(user)}",
            f"chown {_user_name(user)} {file.path}",
        )


def _user_name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except (KeyError, ValueError):
        return str(user)


def look(config: Config, file: Path) -> list[File]:
    """The configuration's own file, and those that it names and that are there."""
    seen: list[File] = []

    def add(option: str, path: Path | None, *, secret: bool = False) -> None:
        if path is None:
            return
        try:
            status = path.stat()
        except OSError:  # not there yet; what has to be there is looked at by others
            return
        seen.append(File(option, str(path), status.st_mode, status.st_uid, secret))

    add("the configuration", file)
    add("tls.certificate", config.tls.certificate)
    add("tls.private_key", config.tls.private_key, secret=True)
    add("tls.client_ca", config.tls.client_ca)
    add("ops.token_file", config.ops.token_file.path if config.ops.token_file else None, secret=True)
    store = config.store.path
    add("store.url", store, secret=True)
    for end in ("-wal", "-shm"):
        add("store.url", store.with_name(store.name + end), secret=True)
    add("the folder of store.url", store.parent)
    for number, issuer in enumerate(config.auth.jwt):
        place = f"auth.jwt[{number}]"
        add(f"{place}.secret_file", issuer.secret_file, secret=True)
        for key in ("jwks_file", "public_key_file", "ca_file"):
            add(f"{place}.{key}", getattr(issuer, key))
    return seen


def check(config: Config, file: Path, running_as: int | None) -> list[Finding]:
    """``running_as`` is who the running proxy belongs to; without one, it is taken to be who asks."""
    user = os.geteuid() if running_as is None else running_as
    findings = judge(look(config, file), user)
    if running_as is None and user == ROOT:
        findings.append(
            note(
                "user_unknown",
                "it is not known which user the proxy runs as, so owners were compared with root",
                "start the proxy first, or ask as its user: sudo -u USER ollama-auth-proxy doctor",
            )
        )
    return findings
