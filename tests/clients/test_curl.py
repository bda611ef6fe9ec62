"""curl: it shows every answer as it is."""

from __future__ import annotations

import os
import subprocess

from ..wire.site import Keys
from .conftest import DENIED, MODEL, OTHER, Served


def curl(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["curl", "-sS", *words],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_it_streams_with_the_key_in_every_place(proxy: Served, limited: str) -> None:
    body = ("--cacert", proxy.trust, "-N", "-d", f'{{"model": "{MODEL}", "prompt": "Hi"}}')
    for words in (
        ("-H", f"Authorization: Bearer {limited}", f"{proxy.url}/api/generate"),
        ("-H", f"X-Api-Key: {limited}", f"{proxy.url}/api/generate"),
        ("-u", f"any:{limited}", f"{proxy.url}/api/generate"),
        (f"{proxy.url.replace('https://', f'https://any:{limited}@')}/api/generate",),
        (f"{proxy.url}/~{limited}/api/generate",),
    ):
        done = curl(*body, *words)
        assert '"done":true' in done.stdout.splitlines()[-1]


def test_it_shows_why_it_is_refused(proxy: Served, keys: Keys, limited: str) -> None:
    trusting = ("--cacert", proxy.trust)
    wrong = curl(*trusting, "-u", f"any:{keys.unknown}", f"{proxy.url}/api/tags")
    assert '"code":"invalid_credentials"' in wrong.stdout
    other = ("-d", f'{{"model": "{OTHER}"}}')
    assert DENIED in curl(*trusting, *other, "-u", f"any:{limited}", f"{proxy.url}/api/chat").stdout
    untrusted = curl("-u", f"any:{limited}", f"{proxy.url}/api/tags")
    assert "curl: (60) SSL certificate problem" in untrusted.stderr
