"""Which model a form names: what clients send is read, and nothing that could be read in two ways."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.errors import ProxyError
from proxy.policy.body import Facts
from proxy.policy.form import MOST_PARTS, read_form
from proxy.policy.model_names import ModelName

from .bodies import BOUNDARY, FORM, form
from .reader import OllamaReader, Sent

TYPE = f"multipart/form-data; boundary={BOUNDARY}"
DISPOSITION = b"\r\nContent-Disposition: form-data; name="
MODEL = DISPOSITION + b'"model"\r\n\r\nwhisper'
SOUND = DISPOSITION + b'"file"; filename="a.wav"\r\nContent-Type: audio/x-wav\r\n\r\nRIFF\x00\xff\r\n\r\n--'
WHISPER = (ModelName("whisper:latest", False),)


def read(body: bytes, content_type: str = TYPE) -> tuple[ModelName, ...]:
    facts = read_form(content_type.encode("latin-1"), body)
    assert facts == Facts(names=facts.names)
    return facts.names


def refused(body: bytes, content_type: str | None = TYPE) -> str:
    with pytest.raises(ProxyError) as caught:
        read_form(None if content_type is None else content_type.encode("latin-1"), body)
    assert (caught.value.code, caught.value.status) == ("unreadable_body", 400)
    return caught.value.message


# What clients send

FILE_NAMES = [
    "a.wav",
    "größe.wav",
    "世界 🦙.mp3",
    'a "quoted" one.wav',
    "a;name=model.wav",
    "C:\\Temp\\a.wav",
    "é",
]


@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_form_of_httpx_is_read(name: str) -> None:
    sent = httpx.Request(
        "POST", "http://x", data={"model": "whisper", "n": ["1", "2"]}, files={"file": (name, b"RIFF")}
    )
    sent.read()
    assert read(sent.content, sent.headers["content-type"]) == WHISPER


@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_form_of_requests_is_read(name: str) -> None:
    files = {"file": (name, b"RIFF", "audio/x-wav"), "model": (None, "whisper")}
    sent = requests.Request("POST", "http://x", files=files).prepare()
    assert isinstance(sent.body, bytes)
    assert read(sent.body, sent.headers["Content-Type"]) == WHISPER


@contextmanager
def recording() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """An HTTP server that keeps what it is sent."""
    found: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.append((self.headers["Content-Type"], body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", found
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("name", [name for name in FILE_NAMES if ";" not in name])
def test_a_form_of_curl_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF\x00\xff")
    spelled = name.replace("\\", "\\\\").replace('"', '\\"')
    with recording() as (url, found):
        command = ["curl", "-s", "--noproxy", "*", "-F", f'file=@{tmp_path / "a.wav"};filename="{spelled}"']
        subprocess.run([*command, "-F", "model=whisper", "-F", "response_format=text", url], check=True)
    ((content_type, body),) = found
    assert read(body, content_type) == WHISPER


# As other clients write their parts: .NET, Apache HttpClient and Spring, OkHttp, aiohttp, browsers.
_TEXT = b"Content-Type: text/plain; charset=utf-8"
_8BIT, _BINARY, _QUOTED_PRINTABLE, _BASE64 = (
    b"\r\nContent-Transfer-Encoding: " + coding
    for coding in (b"8bit", b"binary", b"quoted-printable", b"base64")
)
PARTS = {
    "browsers": DISPOSITION + b'"model"\r\n\r\nwhisper',
    ".NET": b"\r\n" + _TEXT + DISPOSITION + b"model\r\n\r\nwhisper",
    "Apache": DISPOSITION + b'"model"\r\n' + _TEXT + _8BIT + b"\r\n\r\nwhisper",
    "OkHttp": DISPOSITION + b'"model"\r\nContent-Length: 7\r\n\r\nwhisper',
    "lower case": b'\r\ncontent-disposition:form-data;name="model"\r\n\r\nwhisper',
}
FILES = {
    "browsers": DISPOSITION + b'"file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n',
    ".NET": DISPOSITION + b"file; filename=a.wav; filename*=utf-8''gr%C3%B6%C3%9Fe.wav\r\n\r\n",
    "Apache": DISPOSITION + b'"file"; filename="a.wav"' + _BINARY + b"\r\n\r\n",
    "aiohttp": b"\r\nContent-Type: audio/wav" + DISPOSITION + b'"file"; filename="a%20b.wav"\r\n\r\n',
    "raw UTF-8": DISPOSITION + '"file"; filename="größe.wav"\r\n\r\n'.encode(),
    "escapes": DISPOSITION + b'"file"; filename="a\\"; name=\\"model\\\\"\r\n\r\n',
    "no file name": DISPOSITION + b'"file"\r\n\r\n',
}


@pytest.mark.parametrize("client", PARTS)
@pytest.mark.parametrize("file", FILES)
def test_the_parts_of_other_clients_are_read(ollama_reader: OllamaReader, client: str, file: str) -> None:
    body = form([FILES[file] + b"RIFF", PARTS[client]])
    assert read(body) == WHISPER
    (effect,) = ollama_reader.ask([Sent(FORM, body, TYPE)])
    assert effect.models == ("whisper:latest",)


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary={}",
        "multipart/form-data;boundary={}",
        'multipart/form-data; boundary="{}"',
        "Multipart/Form-Data ; BOUNDARY={}",
    ],
)
@pytest.mark.parametrize(
    "boundary", ["a", "----WebKitFormBoundary7MA4YWxkTrZu0gW", "0" * 70, "_=a.b" * 4, "a b:c,d"]
)
@pytest.mark.parametrize("end", [b"--", b"--\r\n"])
def test_a_boundary_may_be_written_like_this(
    ollama_reader: OllamaReader, content_type: str, boundary: str, end: bytes
) -> None:
    header = content_type.format(boundary)
    body = form([SOUND, MODEL], boundary, end)
    if '"' not in header and set(boundary) & set(" =,:"):
        refused(body, header)
    else:
        assert read(body, header) == WHISPER
        (effect,) = ollama_reader.ask([Sent(FORM, body, header)])
        assert effect.models == ("whisper:latest",)


def test_the_model_is_read_as_a_reference() -> None:
    for text, name in {
        " Acme/Whisper:local\n": ("acme/whisper:latest", False),
        "whisper: Cloud": ("whisper:cloud", True),
        "größe": ("", False),
    }.items():
        assert read(form([DISPOSITION + b'"model"\r\n\r\n' + text.encode(), SOUND])) == (ModelName(*name),)


def test_a_form_may_have_as_many_parts_as_ollama_takes(ollama_reader: OllamaReader) -> None:
    other = DISPOSITION + b'"x"\r\n\r\n1'
    most, more = (form([other] * (count - 1) + [MODEL]) for count in (MOST_PARTS, MOST_PARTS + 1))
    assert read(most) == WHISPER
    refused(more)
    effects = ollama_reader.ask([Sent(FORM, most, TYPE), Sent(FORM, more, TYPE)])
    assert [effect.models for effect in effects] == [("whisper:latest",), ()]


# What is refused

EVIL = DISPOSITION + b'"model"\r\n\r\nsekret:cloud'
BODY = form([MODEL, SOUND])
HEADERS = {
    "none": None,
    "empty": "",
    "JSON": "application/json",
    "a form of the other kind": "application/x-www-form-urlencoded",
    "another multipart": f"multipart/mixed; boundary={BOUNDARY}",
    "no boundary": "multipart/form-data",
    "an empty boundary": "multipart/form-data; boundary=",
    "an empty boundary in quotes": 'multipart/form-data; boundary=""',
    "a boundary too long": "multipart/form-data; boundary=" + "a" * 71,
    "two boundaries": f"multipart/form-data; boundary={BOUNDARY}; boundary=a",
    "a boundary in pieces": f"multipart/form-data; boundary*0={BOUNDARY}",
    "an encoded boundary": f"multipart/form-data; boundary*=utf-8''{BOUNDARY}",
    "an encoded boundary beside a plain one": f"multipart/form-data; boundary={BOUNDARY}; boundary*=utf-8''a",
    "another parameter before it": f"multipart/form-data; charset=utf-8; boundary={BOUNDARY}",
    "two fields in one": f"multipart/form-data; boundary={BOUNDARY}, text/plain",
    "an escape in it": f'multipart/form-data; boundary="\\{BOUNDARY}"',
    "a blank at its end": f'multipart/form-data; boundary="{BOUNDARY} "',
    "a comment": f"multipart/form-data; boundary={BOUNDARY} (x)",
    "half a quote": f'multipart/form-data; boundary="{BOUNDARY}',
    "something behind it": f"multipart/form-data; boundary={BOUNDARY};",
}


@pytest.mark.parametrize("what", HEADERS)
def test_any_other_content_type_is_refused(what: str) -> None:
    assert "Content-Type" in refused(BODY, HEADERS[what])


FORMS = {
    "nothing": b"",
    "a form of the other kind": b"model=whisper",
    "no part": b"--" + BOUNDARY.encode() + b"--\r\n",
    "no end": form([MODEL, SOUND], end=b""),
    "half of the end": form([MODEL, SOUND], end=b"-"),
    "something behind the end": form([MODEL, SOUND], end=b"--\r\nx"),
    "a second form behind the end": BODY + form([EVIL]),
    "blanks behind the end": form([MODEL, SOUND], end=b"-- \r\n"),
    "something before it": b"x\r\n" + BODY,
    "a line break before it": b"\r\n" + BODY,
    "lines that end in LF": BODY.replace(b"\r\n", b"\n"),
    "one line that ends in LF": BODY.replace(b"\r\n", b"\n", 1),
    "another boundary": form([MODEL, SOUND], "other"),
    "a longer boundary": form([MODEL, SOUND], BOUNDARY + "x"),
    "a blank behind the boundary": BODY.replace(b"gW\r\n", b"gW \r\n", 1),
    "no model": form([SOUND]),
    "two models": form([MODEL, EVIL]),
    "the model twice, alike": form([MODEL, MODEL]),
    "an empty model": form([DISPOSITION + b'"model"\r\n\r\n', SOUND]),
    "a blank model": form([DISPOSITION + b'"model"\r\n\r\n \xc2\xa0', SOUND]),
    "a model that is no UTF-8": form([DISPOSITION + b'"model"\r\n\r\n\xff', SOUND]),
    "a model in capitals": form([DISPOSITION + b'"Model"\r\n\r\nwhisper', SOUND]),
    "a model in a file": form([DISPOSITION + b'"model"; filename="x"\r\n\r\nwhisper', SOUND]),
    "a model in a file without a name": form([DISPOSITION + b'"model"; filename=""\r\n\r\nwhisper', SOUND]),
    "a model in a file with an encoded name": form(
        [DISPOSITION + b"\"model\"; filename*=utf-8''x\r\n\r\nwhisper"]
    ),
    "a part that encodes its name": form([MODEL, DISPOSITION + b"\"x\"; name*=utf-8''model\r\n\r\nsekret"]),
    "a part with its name in pieces": form([MODEL, DISPOSITION + b'"x"; name*0="model"\r\n\r\nsekret']),
    "a part with two names": form([MODEL, DISPOSITION + b'"x"; name="model"\r\n\r\nsekret']),
    "a part with an escape in its name": form([MODEL, DISPOSITION + b'"mode\\l"\r\n\r\nsekret']),
    "a part without a name": form([MODEL, b"\r\nContent-Disposition: form-data\r\n\r\nsekret"]),
    "a part without a disposition": form([MODEL, b"\r\nContent-Type: text/plain\r\n\r\nsekret"]),
    "a part without a head": form([MODEL, b"\r\n\r\nsekret"]),
    "a part with two dispositions": form(
        [MODEL, DISPOSITION + b'"x"' + DISPOSITION + b'"model"\r\n\r\nsekret']
    ),
    "a part of another disposition": form(
        [b'\r\nContent-Disposition: attachment; name="model"\r\n\r\nx', SOUND]
    ),
    "a part with an empty line too few": form([MODEL, DISPOSITION + b'"x"\r\nsekret']),
    "a folded line": form([b'\r\nContent-Disposition: form-data;\r\n name="model"\r\n\r\nwhisper', SOUND]),
    "a head that begins with a blank": form(
        [b'\r\n Content-Disposition: form-data; name="model"\r\n\r\nx', SOUND]
    ),
    "a blank before the colon": form([b'\r\nContent-Disposition : form-data; name="model"\r\n\r\nx', SOUND]),
    "quoted-printable": form([DISPOSITION + b'"model"' + _QUOTED_PRINTABLE + b"\r\n\r\nx=63", SOUND]),
    "quoted-printable behind 8bit": form(
        [DISPOSITION + b'"model"' + _8BIT + _QUOTED_PRINTABLE + b"\r\n\r\nx=63", SOUND]
    ),
    "base64": form([DISPOSITION + b'"model"' + _BASE64 + b"\r\n\r\nd2hpc3Blcg==", SOUND]),
    "any other field": form([DISPOSITION + b'"model"\r\nX-Other: 1\r\n\r\nwhisper', SOUND]),
    "a part in a part": form([DISPOSITION + b'"x"\r\n\r\n--' + BOUNDARY.encode() + EVIL, MODEL]),
    "a nul in a name": form([DISPOSITION + b'"model\x00"\r\n\r\nwhisper', SOUND]),
}


@pytest.mark.parametrize("what", FORMS)
def test_a_form_that_could_be_read_in_two_ways_is_refused(what: str) -> None:
    message = refused(FORMS[what])
    assert "sekret" not in message
    assert "whisper" not in message


def test_a_part_that_holds_the_boundary_in_the_middle_of_a_line_is_no_end() -> None:
    sound = SOUND + b"--" + BOUNDARY.encode() + b"\r\n" + DISPOSITION[2:] + b'"model"\r\n\r\nsekret'
    assert read(form([sound, MODEL])) == WHISPER


PIECES = (
    *(
        b"--" + BOUNDARY.encode(),
        b"--",
        b"\r\n",
        b"\n",
        b"\r\n\r\n",
        b" ",
        b"x",
        MODEL,
        EVIL,
        SOUND,
        DISPOSITION,
    ),
    *(b'"model"', b"; filename=", b'""', b"; filename*=utf-8''", b"; name*=utf-8''model", b"\r\n" + _TEXT),
)
pieces = st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join)


@settings(max_examples=1000, deadline=None)
@given(pieces)
@example(BODY)
@example(form([DISPOSITION + b'"x"\r\n\r\n--' + BOUNDARY.encode() + EVIL, MODEL]))
def test_what_is_read_is_what_go_reads(ollama_reader: OllamaReader, body: bytes) -> None:
    with suppress(ProxyError):
        ((name, cloud),) = read(body)
        (effect,) = ollama_reader.ask([Sent(FORM, body, TYPE)])
        assert effect.models == (() if name == "" else (name,))
        assert effect.cloud == cloud
