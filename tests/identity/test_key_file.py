"""Keys from a file: each of the three kinds, as it is now, and a clear word where it is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.identity import key_file
from proxy.identity.issuer import Issuer
from proxy.identity.key_file import KeyFile
from proxy.identity.key_set import NoKeysError, from_pem, from_secret

from .tokens import SECRET, issuer, jwks, key_set, signer

OURS = signer()


def from_file(file: Path) -> KeyFile:
    return KeyFile(issuer(jwks_file=file))


def refused(source: KeyFile) -> str:
    with pytest.raises(NoKeysError) as told:
        source.read()
    assert told.value.__cause__ is None
    return str(told.value)


def test_each_kind_of_file_is_read_as_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(jwks(OURS.jwk()))
    assert from_file(file).read() == key_set(OURS)
    file.write_bytes(OURS.pem())
    assert KeyFile(issuer(public_key_file=file)).read() == from_pem(OURS.pem())
    file.write_bytes(SECRET)
    assert KeyFile(issuer("HS256", secret_file=file)).read() == from_secret(SECRET)


def test_no_kind_is_taken_for_another(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    kinds = {"jwks_file": jwks(OURS.jwk()), "public_key_file": OURS.pem(), "secret_file": SECRET}
    for setting in kinds:
        for other, content in kinds.items():
            file.write_bytes(content)
            algorithm = "HS256" if setting == "secret_file" else "RS256"
            settings: dict[str, object] = {"jwks_file": None} | {setting: file}
            source = KeyFile(issuer(algorithm, **settings))
            if other == setting:
                assert source.read().keys
            else:
                assert str(file) in refused(source)


def test_a_changed_file_is_read_anew_and_another_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    read = []

    def counting(data: bytes) -> object:
        read.append(data)
        return original(data)

    original = key_file.from_jwks
    monkeypatch.setattr(key_file, "from_jwks", counting)
    file.write_bytes(jwks(OURS.jwk()))
    source = from_file(file)
    for _ in range(3):
        assert source.read() == key_set(OURS)
    assert len(read) == 1
    before = file.stat()
    file.write_bytes(jwks(signer("RS256", "key-2", 2).jwk()))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # a clock that was set back
    assert source.read() == key_set(signer("RS256", "key-2", 2))


def test_what_cannot_be_read_is_told_and_is_good_again_when_it_can(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    source = from_file(file)
    assert refused(source) == f"{file}: no such file or directory"
    for broken in (b"", b"{", b"\xff", jwks(OURS.jwk())[:-1]):
        file.write_bytes(broken)
        assert refused(source) == f"{file}: not a JSON object with a list 'keys'"
    file.write_bytes(jwks(OURS.jwk()))
    assert source.read() == key_set(OURS)
    file.write_bytes(b"")
    assert "not a JSON object" in refused(source)
    file.write_bytes(jwks(OURS.jwk()))
    assert source.read() == key_set(OURS)


def test_a_secret_is_never_told(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    for content in (b"hunter2", b"hunter2" + OURS.pem(), jwks({"kty": "oct", "k": "hunter2" * 10})):
        file.write_bytes(content)
        told = refused(KeyFile(issuer("HS256", secret_file=file)))
        assert "hunter2" not in told
        assert told.startswith(f"{file}: a ")


def test_only_files_of_a_sensible_size_are_read(tmp_path: Path) -> None:
    assert refused(from_file(tmp_path)) == f"{tmp_path}: not a file"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert refused(from_file(pipe)) == f"{pipe}: not a file"
    assert refused(from_file(Path("/dev/zero"))) == "/dev/zero: not a file"
    large = tmp_path / "large"
    large.write_bytes(jwks(OURS.jwk()) + b" " * key_file.MAX_FILE)
    assert refused(from_file(large)) == f"{large}: larger than 1048576 bytes"


def test_a_link_is_followed_as_secrets_on_kubernetes_are(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / str(number)).write_bytes(jwks(signer("RS256", "key-1", number).jwk()))
    link = tmp_path / "keys"
    source = from_file(link)
    for number in (1, 2):
        other = tmp_path / "new"
        other.symlink_to(tmp_path / str(number))
        other.replace(link)
        assert source.read() == key_set(signer("RS256", "key-1", number))


def test_an_issuer_without_a_source_is_a_fault() -> None:
    nothing = Issuer("name", frozenset({"a"}), frozenset({"RS256"}))
    with pytest.raises(ValueError, match="no source of keys"):
        KeyFile(nothing)
