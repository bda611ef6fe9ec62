"""``keys add-ssh``: the public keys of the stock ``ollama`` command."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess

import pytest

from proxy.identity.api_keys import Secret
from proxy.store.follow import load

from .command import FINGERPRINT, documents, said, stored


def test_an_ssh_key_is_added_and_shown_with_the_fingerprint_of_ssh_keygen(keys, database, public_key):
    done = keys("add-ssh", "desk", str(public_key))
    (document,) = documents(database)
    assert (done.returncode, done.stdout) == (0, f"added {document['id']} desk {FINGERPRINT}\n")
    assert "OLLAMA_AUTH=1" in done.stderr
    assert (document["kind"], document["scopes"]) == ("ssh", ["inference", "read"])
    assert f"fingerprint  {FINGERPRINT}\n" in keys("show", document["id"]).stdout
    shown = json.loads(keys("show", document["id"], "--json").stdout)
    assert shown == {"fingerprint": FINGERPRINT, **document}
    (key,) = asyncio.run(load(database)).values()
    assert key.secrets == (Secret(key.secrets[0].digest),)


def test_an_ssh_key_is_in_the_list_changed_and_revoked_like_any_other(keys, public_key):
    document = json.loads(keys("add-ssh", "desk", str(public_key), "--json").stdout)
    assert re.search(r"desk  ssh  ", keys("list").stdout)
    changed = json.loads(keys("set", document["id"], "--model", "llama3.2", "--json").stdout)
    assert changed == {**document, "models": ["llama3.2"]}
    done = keys("revoke", document["id"])
    assert (done.returncode, done.stdout) == (0, f"revoked {document['id']} desk\n")


def test_it_is_said_that_the_configuration_refuses_signatures(keys, config_file, public_key):
    with config_file.open("a") as file:
        file.write("[auth]\nssh_signatures = false\n")
    done = keys("add-ssh", "desk", str(public_key))
    assert done.returncode == 0
    assert "Signatures are refused while auth.ssh_signatures is false." in done.stderr


def test_a_public_key_is_registered_once(keys, public_key):
    document = json.loads(keys("add-ssh", "desk", str(public_key), "--json").stdout)
    done = keys("add-ssh", "another", str(public_key))
    assert done.returncode == 1
    assert f"this public key is registered already, as the key {document['id']}" in said(done)
    keys("revoke", document["id"])
    assert keys("add-ssh", "another", str(public_key)).returncode == 0


def test_a_private_key_is_refused_and_not_repeated(keys, database, tmp_path):
    secret = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gt"
    file = tmp_path / "id_ed25519"
    file.write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{secret}\n-----END OPENSSH PRIVATE KEY-----\n")
    done = keys("add-ssh", "desk", str(file))
    assert done.returncode == 2
    assert "this is a PRIVATE key, which must stay with its owner; give the public one" in said(done)
    assert secret not in done.stderr
    assert not database.exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "the file cannot be read: No such file or directory"),
        (b"", "not a public key of OpenSSH: give a file like ~/.ollama/id_ed25519.pub"),
        (b"\xff" * 100_000, "not a public key of OpenSSH"),
        (b"ssh-rsa AAAAB3NzaC1yc2E jo@desk", "keys of the kind ssh-rsa are not taken, only ssh-ed25519"),
        (
            b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 jo",
            "the key after 'ssh-ed25519' is incomplete or damaged: copy the whole line again",
        ),
    ],
)
def test_a_file_that_holds_no_public_key_is_wrong_usage(keys, tmp_path, content, told):
    file = tmp_path / "id.pub"
    if content is not None:
        file.write_bytes(content)
    done = keys("add-ssh", "desk", str(file))
    assert done.returncode == 2
    assert f"Invalid value for 'PUBLIC_KEY_FILE': {told}" in said(done)


def test_the_names_of_ssh_keys_follow_the_same_rules(keys, database, public_key):
    _, document = stored(database, "laptop")
    done = keys("add-ssh", "laptop", str(public_key))
    assert done.returncode == 1
    assert f"the name 'laptop' belongs to the key {document['id']}" in said(done)
    done = keys("add-ssh", "a\nb", str(public_key))
    assert done.returncode == 2
    assert "1 to 64 letters, digits" in said(done)


def test_a_key_of_ssh_keygen_is_added(keys, tmp_path):
    program = shutil.which("ssh-keygen")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("ssh-keygen is missing: install openssh-client")
        pytest.skip("ssh-keygen is not installed")
    file = tmp_path / "id"
    subprocess.run([program, "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
    told = subprocess.run([program, "-l", "-f", file], capture_output=True, text=True, check=True).stdout
    done = keys("add-ssh", "desk", f"{file}.pub", "--json")
    assert json.loads(done.stdout)["fingerprint"] == told.split()[1]
    assert "this is a PRIVATE key" in said(keys("add-ssh", "desk", str(file)))
