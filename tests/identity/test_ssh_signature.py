"""Signatures as the ``ollama`` command makes them: who is let in, and everything that comes near to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import timeit
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key
from hypothesis import given
from hypothesis import strategies as st

from proxy.identity import api_keys
from proxy.identity.api_keys import ApiKey, Refusal, Secret, digest, issue, issue_ssh
from proxy.identity.ssh_signature import fingerprint, parse_public_key, verify

NOW = 1_800_000_000.0

# Made by auth.Sign of Ollama 0.24 with a key of ssh-keygen, and what ssh-keygen -l says of that key.
OLLAMA_LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMDZadMLcFifkbeiOW/GeEeCl7jA6nnhbMch5YCB79E9 jo@desk\n"
OLLAMA_FINGERPRINT = "SHA256:hE2GZRtOCRytYwNmFY0U4TYdn8MyjAqszYOoa4MK2O8"
OLLAMA_SIGNATURES = {
    (
        "HEAD",
        b"/",
    ): "LLrSjirU9UfoEAiohKr5T6aALJ+2VwOblrOmZ4nLvxUFG8w1KiE4Oof+IUhdvRk2ddslu2mqSOOjcguUO1y4Dw==",
    ("POST", b"/api/chat"): (
        "5jd4caIU8m18rwd4FiHSWjtlPtvmc9EbKror8Ped2FfpxEpDXjDmAPyco4l4I7SWTamgz40jzybAbn4n4R1rAg=="
    ),
}

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def line_of(private: Ed25519PrivateKey) -> str:
    return private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


LINE = line_of(PRIVATE)
BLOB = b64decode(LINE.split()[1])
KEY = issue_ssh("laptop", BLOB, NOW)


def knowing(*keys: ApiKey) -> dict[bytes, ApiKey]:
    return {secret.digest: key for key in keys for secret in key.secrets}


KNOWN = knowing(KEY)


def sign(
    method: str = "POST",
    path: bytes = b"/api/chat",
    query: bytes = b"ts=1800000000",
    private: Ed25519PrivateKey = PRIVATE,
) -> bytes:
    signature = private.sign(method.encode() + b"," + path + b"?" + query)
    return line_of(private).split()[1].encode() + b":" + b64encode(signature)


def ask(
    presented: bytes,
    method: str = "POST",
    path: bytes = b"/api/chat",
    query: bytes = b"ts=1800000000",
    now: float = NOW,
    known: dict[bytes, ApiKey] = KNOWN,
) -> ApiKey | Refusal:
    return verify(known, presented, method, path, query, now)


# Who is let in


@pytest.mark.parametrize(("method", "path"), OLLAMA_SIGNATURES)
def test_what_ollama_signs_opens_the_request_that_it_signed(method: str, path: bytes) -> None:
    key = issue_ssh("desk", parse_public_key(OLLAMA_LINE), NOW)
    presented = f"{OLLAMA_LINE.split()[1]}:{OLLAMA_SIGNATURES[method, path]}".encode()
    assert ask(presented, method, path, known=knowing(key)) is key
    assert ask(presented, method, path + b"x", known=knowing(key)) is Refusal.INVALID


@given(
    st.sampled_from(["GET", "HEAD", "POST", "DELETE"]),
    st.binary(max_size=60).map(lambda rest: b"/" + rest),
    st.integers(0, 2**39),
    st.floats(-60, 60),
)
def test_whoever_holds_the_key_may_sign_any_request_of_this_minute(
    method: str, path: bytes, second: int, skew: float
) -> None:
    query = b"ts=%d" % second
    assert ask(sign(method, path, query), method, path, query, second + skew) is KEY


def test_every_key_is_told_from_the_others() -> None:
    privates = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(5)]
    keys = [
        issue_ssh(f"key {number}", parse_public_key(line_of(private)), NOW)
        for number, private in enumerate(privates)
    ]
    for private, key in zip(privates, keys, strict=True):
        assert ask(sign(private=private), known=knowing(*keys)) is key


# Who is not


def test_a_stranger_is_refused_whose_signature_is_right() -> None:
    stranger = Ed25519PrivateKey.generate()
    assert ask(sign(private=stranger)) is Refusal.INVALID
    assert ask(sign(), known={}) is Refusal.INVALID


def test_one_cannot_sign_for_the_key_of_another() -> None:
    signature = sign(private=Ed25519PrivateKey.generate()).partition(b":")[2]
    assert ask(sign().partition(b":")[0] + b":" + signature) is Refusal.INVALID


def test_a_signature_is_good_for_its_own_request_alone() -> None:
    presented = sign()
    assert ask(presented) is KEY
    assert ask(presented, method="DELETE") is Refusal.INVALID
    assert ask(presented, method="post") is Refusal.INVALID
    assert ask(presented, path=b"/api/generate") is Refusal.INVALID
    assert ask(presented, path=b"/prefix/api/chat") is Refusal.INVALID
    assert ask(presented, query=b"ts=1800000001") is Refusal.INVALID


@pytest.mark.parametrize(
    ("skew", "good"),
    [(-60, True), (60, True), (0.999, True), (-60.001, False), (60.001, False), (-3600, False), (1e9, False)],
)
def test_a_signature_holds_for_a_minute_before_and_after_its_time(skew: float, good: bool) -> None:
    assert ask(sign(), now=NOW + skew) is (KEY if good else Refusal.INVALID)


@pytest.mark.parametrize(
    "query",
    [
        b"",
        b"ts=",
        b"ts=+1800000000",
        b"ts=-1800000000",
        b"ts= 1800000000",
        b"ts=01800000000",
        b"ts=1800000000.0",
        b"ts=18e8",
        b"ts=0x6b49d200",
        b"ts=1_800_000_000",
        b"ts=1800000000\n",
        b"ts=\xd9\xa1800000000",
        "ts=١٨٠٠٠٠٠٠٠٠".encode(),
        b"TS=1800000000",
        b"t%73=1800000000",
        b"ts=%31800000000",
        b"?ts=1800000000",
        b"&ts=1800000000",
        b"ts=1800000000&",
        b"ts=1800000000&ts=1800000000",
        b"ts=1800000000&a=b",
        b"a=b&ts=1800000000",
        b"ts=1800000000#a",
        b"ts=" + b"9" * 5000,
    ],
)
def test_the_time_stands_alone_in_the_query_and_in_one_spelling(query: bytes) -> None:
    assert ask(sign(query=query), query=query) is Refusal.INVALID


def _other_spellings(presented: bytes) -> list[bytes]:
    blob, _, signature = presented.partition(b":")
    last = signature[-3:-2]  # of its six bits four are not used
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    neighbour = alphabet[alphabet.index(last) ^ 1 :][:1]
    return [
        blob + b":" + signature.rstrip(b"="),
        blob + b":" + signature + b"=",
        blob + b":" + signature[:-3] + neighbour + b"==",
        blob + b":" + urlsafe_b64encode(b64decode(signature)),
        blob + b": " + signature,
        blob + b"=:" + signature,
        b" " + presented,
        presented + b" ",
        presented + b"\n",
        presented + b":",
        blob + b";" + signature,
        blob + b"::" + signature[:-1],
        b"Bearer " + presented,
        blob,
        blob + b":",
        b":" + signature,
        signature + b":" + blob,
        blob[:40] + b"\n" + blob[40:] + b":" + signature,
        blob[:-1] + b"!" + b":" + signature,
        blob + b":" + signature[:-1] + b"\xff",
        b"ssh-ed25519 " + presented,
    ]


def test_a_signature_has_one_spelling() -> None:
    queries = [b"ts=%d" % second for second in range(1_799_999_990, 1_800_000_000)]
    urlsafe = 0
    for query in queries:  # several, so that there are some with + or / in them
        presented = sign(query=query)
        assert ask(presented, query=query) is KEY
        for other in _other_spellings(presented):
            urlsafe += b"-" in other or b"_" in other
            if other != presented:
                assert ask(other, query=query) is Refusal.INVALID, other
    assert urlsafe


def test_a_signature_with_the_group_order_added_is_refused() -> None:
    blob, _, signature = sign().partition(b":")
    raw = b64decode(signature)
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(raw[32:], "little") + order  # RFC 8032 section 8.4
    forged = raw[:32] + scalar.to_bytes(32, "little")
    assert ask(blob + b":" + b64encode(forged)) is Refusal.INVALID


@given(st.integers(0, 156), st.integers(0, 255))
def test_a_signature_with_one_byte_changed_is_refused(place: int, byte: int) -> None:
    presented = bytearray(sign())
    before, presented[place] = presented[place], byte
    assert (ask(bytes(presented)) is Refusal.INVALID) == (byte != before)


@given(
    st.one_of(st.binary(max_size=200), st.binary(min_size=157, max_size=157)),
    st.text(max_size=10),
    st.binary(max_size=50),
    st.one_of(st.binary(max_size=30), st.just(b"ts=1800000000")),
)
def test_nothing_that_was_made_up_is_accepted_or_does_harm(
    presented: bytes, method: str, path: bytes, query: bytes
) -> None:
    assert ask(presented, method, path, query) is Refusal.INVALID


def test_a_method_of_any_characters_does_no_harm() -> None:
    assert ask(sign(), method="\udcff\U0001f600") is Refusal.INVALID


# What becomes of a key


@pytest.mark.parametrize(("left", "refused"), [(0.001, None), (0, Refusal.EXPIRED), (-1, Refusal.EXPIRED)])
def test_an_expired_key_is_refused_as_expired_from_its_very_second_on(
    left: float, refused: Refusal | None
) -> None:
    key = replace(KEY, expires=NOW + left)
    assert ask(sign(), known=knowing(key)) is (refused or key)


def test_only_its_owner_learns_that_a_key_has_expired() -> None:
    known = knowing(replace(KEY, expires=NOW - 1))
    assert ask(sign(), path=b"/", known=known) is Refusal.INVALID
    assert ask(sign(), now=NOW + 61, known=known) is Refusal.INVALID


@pytest.mark.parametrize("expires", [None, NOW - 1])
def test_a_revoked_key_looks_like_an_unknown_one(expires: float | None) -> None:
    assert ask(sign(), known=knowing(replace(KEY, revoked=NOW - 5, expires=expires))) is Refusal.INVALID


def test_a_secret_that_has_ended_proves_nothing() -> None:
    for ended in (Secret(digest(BLOB), NOW), Secret(digest(BLOB), NOW - 1)):
        assert ask(sign(), known=knowing(replace(KEY, secrets=(ended,)))) is Refusal.INVALID


def test_a_key_is_good_for_what_it_was_made_for_only() -> None:
    text, key = issue("laptop", NOW)
    assert ask(sign(), known={digest(BLOB): replace(KEY, kind="api_key")}) is Refusal.INVALID
    assert ask(sign(), known={digest(BLOB): key}) is Refusal.INVALID
    assert api_keys.verify({KEY.id: KEY}, sign(), NOW) is Refusal.INVALID
    assert api_keys.verify({key.id: replace(key, kind="ssh")}, text.encode(), NOW) is Refusal.INVALID


def test_a_stranger_costs_no_arithmetic() -> None:
    """Far less than a signature does, which is 100 µs; and the library is not even loaded."""
    stranger = sign(private=Ed25519PrivateKey.generate())
    best = min(timeit.repeat(lambda: ask(stranger), number=500, repeat=10)) / 500
    assert best < 20e-6
    program = (
        "import sys; from proxy.identity.ssh_signature import verify; "
        f"verify({{}}, {stranger!r}, 'POST', b'/api/chat', b'ts=1800000000', {NOW}); "
        "print('cryptography' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_checking_a_signature_costs_less_than_a_millisecond() -> None:
    presented = sign()
    assert min(timeit.repeat(lambda: ask(presented), number=50, repeat=5)) / 50 < 1e-3


# Files with public keys


def test_a_fingerprint_is_the_one_that_ssh_keygen_prints() -> None:
    assert fingerprint(digest(parse_public_key(OLLAMA_LINE))) == OLLAMA_FINGERPRINT


@pytest.mark.parametrize(
    "comment", ["", " ", " jo@desk", " a comment of five words", "\tjürgen", " " + "x" * 999]
)
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_a_line_is_read_whatever_its_comment_and_its_end(comment: str, end: str) -> None:
    assert parse_public_key(LINE + comment + end) == BLOB


@given(st.binary(min_size=32, max_size=32))
def test_every_ed25519_key_is_read_as_what_was_written(raw: bytes) -> None:
    private = Ed25519PrivateKey.from_private_bytes(raw)
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    blob = parse_public_key(line_of(private))
    assert blob == b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + public
    assert fingerprint(digest(blob)).startswith("SHA256:")
    assert len(fingerprint(digest(blob))) == 50


def _blob_text(blob: bytes) -> str:
    return f"ssh-ed25519 {b64encode(blob).decode()}"


PRIVATE_TEXT = (
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
)
OF_ANOTHER_LENGTH = b"\0\0\0\x0bssh-ed25519\0\0\0\x1f" + bytes(31)
OF_ANOTHER_ALGORITHM = b"\0\0\0\x0bssh-ed25518\0\0\0\x20" + bytes(32)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (PRIVATE_TEXT, "this is a PRIVATE key, .* ends in .pub"),
        ("-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----", "this is a PRIVATE key"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n", "this is a PRIVATE key"),
        ("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----", "ssh-keygen -i -f FILE"),
        ("", "not a public key of OpenSSH: give a file like ~/.ollama/id_ed25519.pub"),
        ("\n", "not a public key of OpenSSH"),
        ("hello", "not a public key of OpenSSH"),
        ("\ufffd\x00\x01", "not a public key of OpenSSH"),
        ("SSH-ED25519 " + LINE.split()[1], "not a public key of OpenSSH"),
        (LINE.split()[1], "not a public key of OpenSSH"),
        (f"no-pty {LINE}", "not a public key of OpenSSH"),
        (f"# mine\n{LINE}", "more than one line"),
        (f"{LINE}\n{LINE}", "more than one line"),
        (
            "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ",
            "keys of the kind ssh-rsa are not taken, only ssh-ed25519",
        ),
        ("ecdsa-sha2-nistp256 AAAAE2VjZHNh", "keys of the kind ecdsa-sha2-nistp256 are not taken"),
        ("sk-ssh-ed25519@openssh.com AAAAGnNr", "keys of the kind sk-ssh-ed25519@openssh.com are not taken"),
        ("ssh-ed25519", "incomplete or damaged: copy the whole line again"),
        ("ssh-ed25519 jo@desk", "incomplete or damaged"),
        (LINE[:-1], "incomplete or damaged"),
        (LINE + "A", "incomplete or damaged"),
        (LINE + "=", "incomplete or damaged"),
        (LINE[:-1] + "é", "incomplete or damaged"),
        (LINE[:40] + "-" + LINE[41:], "incomplete or damaged"),
        (_blob_text(b""), "incomplete or damaged"),
        (_blob_text(BLOB[:-1]), "incomplete or damaged"),
        (_blob_text(BLOB + b"\0"), "incomplete or damaged"),
        (_blob_text(OF_ANOTHER_LENGTH), "incomplete or damaged"),
        (_blob_text(OF_ANOTHER_LENGTH + b"\0"), "incomplete or damaged"),
        (_blob_text(OF_ANOTHER_ALGORITHM), "incomplete or damaged"),
    ],
)
def test_what_is_no_ed25519_public_key_is_refused_and_said_why(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as refused:
        parse_public_key(text)
    assert "b3BlbnNz" not in str(refused.value)
    assert LINE.split()[1] not in str(refused.value)


@given(st.text(max_size=200))
def test_any_other_text_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"give a|copy the whole line|which must stay"):
        parse_public_key(text)


@pytest.fixture
def ssh_keygen() -> Callable[..., str]:
    program = shutil.which("ssh-keygen")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("ssh-keygen is missing: install openssh-client")
        pytest.skip("ssh-keygen is not installed")

    def run(*arguments: object) -> str:
        command = [program, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return run


def test_a_key_of_ssh_keygen_signs_in(ssh_keygen: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "id_ed25519"
    ssh_keygen("-q", "-t", "ed25519", "-N", "", "-C", "jo@desk, at home", "-f", file)
    blob = parse_public_key(file.with_suffix(".pub").read_text())
    assert fingerprint(digest(blob)) == ssh_keygen("-l", "-f", file.with_suffix(".pub")).split()[1]
    private = load_ssh_private_key(file.read_bytes(), None)
    assert isinstance(private, Ed25519PrivateKey)
    key = issue_ssh("desk", blob, NOW)
    assert ask(sign(private=private), known=knowing(key, KEY)) is key
    with pytest.raises(ValueError, match="PRIVATE key"):
        parse_public_key(file.read_text())


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_kinds_of_ssh_keygen_are_named_and_refused(
    ssh_keygen: Callable[..., str], tmp_path: Path, kind: str
) -> None:
    ssh_keygen("-q", "-t", kind, "-N", "", "-f", tmp_path / "id")
    with pytest.raises(ValueError, match=f"keys of the kind (ssh-)?{kind}.* are not taken, only ssh-ed25519"):
        parse_public_key((tmp_path / "id.pub").read_text())
