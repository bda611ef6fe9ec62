"""Makes bodies for every route that names a model: ordinary ones, and ones that can be read in two ways.

Members are kept as texts of JSON, so that a name or a value can be written in any way that JSON has, or
wrongly, or twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from .reader import Sent

ROUTES = (
    *("POST /api/show", "POST /api/generate", "POST /api/chat", "POST /api/embed", "POST /api/embeddings"),
    *("POST /api/pull", "POST /api/push", "POST /api/create", "POST /api/copy", "DELETE /api/delete"),
    *("POST /v1/chat/completions", "POST /v1/completions", "POST /v1/responses", "POST /v1/messages"),
    *("POST /v1/embeddings", "POST /v1/audio/transcriptions", "GET /v1/models/{model}"),
)
FORM, PATH = "POST /v1/audio/transcriptions", "GET /v1/models/{model}"

BLANKS = " \t\n\v\f\r\x85\xa0\u1680\u2000\u2003\u200a\u2028\u2029\u202f\u205f\u3000"
NO_BLANKS = "\x1c\x1f\u180e\u200b\u2060\ufeff\x00"
"""What some readers take for blanks, and Go does not."""

PLAIN = (
    *("smollm2", "smollm2:135m", "SmolLM2:latest", "sekret", "sekret:7b", "library/smollm2", "acme/kiosk:7b"),
    *("acme/smollm2", "hf.co/acme/kiosk:Q4_K_M", "registry.ollama.ai/library/sekret", "host:5000/acme/x:1"),
)
"""Names of local models; the first three are what callers with one model may use."""
CLOUD = ("gpt-oss:cloud", "gpt-oss:120b-cloud", "smollm2:cloud", "acme/kiosk:7b-cloud", "hf.co/acme/x:cloud")
OPTIONS = ("num_ctx", "num_predict", "num_gpu", "num_thread")
NUMBERS = (
    *(
        "0",
        "-0",
        "1",
        "2",
        "4",
        "256",
        "257",
        "4096",
        "4097",
        "-1",
        "-2",
        "4096.0",
        "4096.9",
        "4.1e3",
        "4E+3",
    ),
    *("1e2", "1e400", "-1e400", "1e-400", "9007199254740993", "9223372036854775807", "9223372036854775808"),
    *("-9223372036854775808", "-9223372036854775809", "1" + "0" * 60, "01", "+1", "1.", ".5", "0x10", "NaN"),
    *("Infinity", "-Infinity", "1_000", "'1'", "\u0663", "1" + "0" * 400, "1" * 5000),
)
WRONG = ("null", "true", "false", "[]", "{}", '""', '"x"', "0", "[null]", '{"model":"sekret"}')
KEEP_ALIVES = (
    *('"5m"', '"10s"', '"1h"', '"0"', '"0s"', '"-1"', '"-1ns"', '"1e3s"', '"1h1m1s"', '"59.999999999s"'),
    *(
        '"-0.1ns"',
        '"2562047h48m"',
        '"9223372036.854775808s"',
        '"+90s"',
        '"1m "',
        '"\u0661m"',
        '""',
        '"1d"',
        "300",
    ),
    *("0", "-1", "-0.0", "60", "59.9999999999999999", "3600.0000001", "9223372037", "1e10", "1e300"),
    *("1" + "0" * 400, "1" * 5000, "1e-400", "true", "[60]", "null", '"' + "0" * 70 + '90s"'),
)
TOOL_TYPES = (
    *("function", "custom", "web_search", "web_search_20250305", "web_fetch_20250910", "Web_Search"),
    *(
        " web_search",
        "\tweb_search ",
        "\xa0web_search",
        "web_search_preview",
        "namespace",
        "web\u017fsearch",
        "",
    ),
    *("we\u017f_search", "web_\u017fearch", "mcp"),
)


@dataclass
class Members:
    """One object: its members as they will be written, before the text is joined and spoiled."""

    route: str
    members: list[tuple[str, str]]
    wrap: Callable[[bytes], bytes] = field(default=lambda body: body)

    def value(self, key: str) -> str | None:
        return next((value for name, value in self.members if name == f'"{key}"'), None)

    def set(self, key: str, value: str) -> None:
        name = f'"{key}"'
        self.members = [member for member in self.members if member[0] != name] + [(name, value)]

    def body(self, comma: str = ",", colon: str = ":") -> bytes:
        text = "{" + comma.join(f"{name}{colon}{value}" for name, value in self.members) + "}"
        return self.wrap(text.encode("utf-8", "surrogatepass"))


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def ordinary(random: Random, route: str) -> Members:
    """A body as clients send it, for some model, with some of what the route knows."""
    name = quoted(random.choice(PLAIN + CLOUD[: random.choice((0, 5))]))
    made = Members(route, [])
    if route == "POST /api/copy":
        made.members = [('"source"', name), ('"destination"', quoted(random.choice(PLAIN)))]
        return made
    if route in (
        "POST /api/show",
        "POST /api/pull",
        "POST /api/push",
        "DELETE /api/delete",
        "POST /api/create",
    ):
        key = random.choice(("model", "model", "name"))
        made.set(key, name)
        if random.random() < 0.2:
            made.set("name" if key == "model" else "model", random.choice((name, '""')))
    else:
        made.set("model", name)
    if route in ("POST /api/pull", "POST /api/push") and random.random() < 0.3:
        made.set("insecure", random.choice(("true", "false")))
    if route == "POST /api/create":
        made.set("from", quoted(random.choice(PLAIN + CLOUD)))
        if random.random() < 0.3:
            made.set("parameters", options(random))
        if random.random() < 0.1:
            made.set("remote_host", random.choice(('""', '"https://ollama.com"')))
    if "/api/" in route and random.random() < 0.4:
        made.set("options", options(random))
    if route in ("POST /api/generate", "POST /api/chat", "POST /api/embed") and random.random() < 0.3:
        made.set("keep_alive", random.choice(('"5m"', "300", "0", "-1", '"1h30m"', "null")))
    if route in ("POST /v1/messages", "POST /v1/responses"):
        made.set(
            "max_tokens" if "messages" in route else "max_output_tokens", random.choice(("1", "256", "1024"))
        )
        if random.random() < 0.3:
            made.set("tools", tools(random, TOOL_TYPES[:5]))
    if "completions" in route and random.random() < 0.5:
        made.set("max_tokens", random.choice(("1", "256", "1024")))
    if random.random() < 0.3:
        made.set("prompt", random.choice(('"the \\ud83d\\ude00 cloud"', '"\\ud83d"', '"größer \\u00e9 🦙"')))
    random.shuffle(made.members)
    return made


def options(random: Random, numbers: tuple[str, ...] = ("1", "256", "1024", "4096", "8192")) -> str:
    members = [f'"{name}":{random.choice(numbers)}' for name in OPTIONS if random.random() < 0.4]
    return "{" + ",".join([*members, '"temperature":0.5']) + "}"


def tools(random: Random, types: tuple[str, ...] = TOOL_TYPES) -> str:
    """Tools; with all types, also ones that hold tools, and names of members in other spellings, or twice."""
    found = []
    for _ in range(random.randint(1, 3)):
        members = [f'"type":{quoted(random.choice(types))}', '"name":"web_search"']
        if types is TOOL_TYPES and random.random() < 0.3:
            members.append(f'"tools":{tools(random)}' if random.random() < 0.7 else '"tools":null')
        if types is TOOL_TYPES and random.random() < 0.3:
            name = random.choice(('"type"', '"Type"', '"TYPE"', '"t\\u0079pe"', '"tool\u017f"', '"Tools"'))
            value = tools(random, types[:5]) if "ool" in name else quoted(random.choice(types[:5]))
            members.append(f"{name}:{random.choice((value, value, 'null'))}")
        random.shuffle(members)
        found.append("{" + ",".join(members) + "}")
    return "[" + ",".join(found) + "]"


# Names


def strange_name(random: Random) -> str:
    name = random.choice(PLAIN + CLOUD)
    for _ in range(random.randint(1, 3)):
        name = random.choice(_NAME_TRICKS)(random, name)
    return name


def _cased(random: Random, text: str) -> str:
    return "".join(random.choice((letter.lower(), letter.upper())) for letter in text)


def _folded(random: Random, text: str) -> str:
    """With letters that fold to others: a long s, a Kelvin sign, a dotted I."""
    return "".join(
        {"s": "\u017f", "k": "\u212a", "i": "\u0130"}.get(c, c) if random.random() < 0.5 else c for c in text
    )


def _blank(random: Random) -> str:
    return "".join(
        random.choice(BLANKS + NO_BLANKS * (random.random() < 0.2)) for _ in range(random.randint(0, 2))
    )


SUFFIXES = (
    *(
        ":cloud",
        ":local",
        ":CLOUD",
        ":Local",
        ":7b-cloud",
        ":7b-CLOUD",
        ":-cloud",
        "-cloud",
        ":latest",
        ":7b",
    ),
    *(":cloud:local", ":local:cloud", ":local:local", ":cloud-cloud", ":local-cloud", ":c\u0142oud", ":"),
    *("@sha256:" + "a" * 64, "/", "/x", ":cloud/x", ":x-cloud/y", "\u200b", "\x00", "%3Acloud"),
)
PREFIXES = (
    *(
        "https://",
        "http://",
        "://",
        "foo://",
        "//",
        "/",
        "registry.ollama.ai/",
        "registry.ollama.ai/library/",
    ),
    *("library/", "https://registry.ollama.ai/library/", "x:///library/", "Registry.Ollama.AI/Library/"),
    *("registry.ollama.ai:443/library/", "hf.co/acme/", "acme/", "../", "./", ":cloud/", "a:cloud/b/"),
)
_NAME_TRICKS: tuple[Callable[[Random, str], str], ...] = (
    _cased,
    _folded,
    lambda random, name: _blank(random) + name + _blank(random),
    lambda random, name: name + random.choice(SUFFIXES),
    lambda random, name: name.partition(":")[0] + random.choice(SUFFIXES),
    lambda random, name: (
        name + ":" + _blank(random) + random.choice(("cloud", "local", "7b-cloud")) + _blank(random)
    ),
    lambda random, name: random.choice(PREFIXES) + name,
    lambda random, name: name.replace(
        random.choice("lo:/"), random.choice(("", "\\", "\ufffd", ".", "-", "_")), 1
    ),
    lambda random, name: name.partition(":")[0].ljust(random.choice((79, 80, 81, 349, 351)), "x"),
    lambda random, name: name + ":" + "x" * random.choice((74, 75, 80, 81)) + random.choice(("", "-cloud")),
)

# Spellings


def _key_variant(random: Random, name: str) -> str:
    """The name of a member, in another spelling that one of two readers may take for the same."""
    text: str = json.loads(name)
    return random.choice(
        (
            quoted(_cased(random, text)),
            quoted(_folded(random, text)),
            _escaped(random, name),
            quoted(text + random.choice(("\u0000", " ", "\u200b"))),
            quoted(text.replace("_", "-")),
        )
    )


def _escaped(random: Random, text: str) -> str:
    """A text of JSON with some of its letters as numbers, which means the same."""
    inner = "".join(
        (f"\\u{ord(c):04x}" if random.random() < 0.5 else f"\\u{ord(c):04X}")
        if c.isascii() and c not in '"\\' and random.random() < 0.4
        else c
        for c in text[1:-1]
    )
    return f'"{inner}"' if "\\" not in text else text


def _another_value(random: Random, name: str) -> str:
    """Another value for the member, right or wrong."""
    key = json.loads(name)
    if random.random() < 0.15:
        return random.choice(WRONG)
    if key in ("options", "parameters"):
        return options(random, NUMBERS)
    if key == "tools":
        return tools(random)
    if key == "keep_alive":
        return random.choice(KEEP_ALIVES)
    if key in ("max_tokens", "max_output_tokens"):
        return random.choice(NUMBERS)
    if key in ("insecure", "_debug_render_only"):
        return random.choice(("true", "false", "null", "1", '"true"'))
    text = quoted(strange_name(random) if random.random() < 0.6 else random.choice(PLAIN + CLOUD))
    return _escaped(random, text) if random.random() < 0.3 else text


_EVERY_KEY = tuple(
    f'"{key}"'
    for key in (
        *(
            "model",
            "model",
            "name",
            "name",
            "from",
            "remote_host",
            "source",
            "destination",
            "options",
            "options",
        ),
        *("parameters", "keep_alive", "keep_alive", "tools", "tools", "insecure", "_debug_render_only"),
        *("max_tokens", "max_output_tokens", "max_completion_tokens"),
    )
)


def _insert(random: Random, made: Members, member: tuple[str, str]) -> None:
    made.members.insert(random.randint(0, len(made.members)), member)


def _twice(random: Random, made: Members) -> None:
    name, value = random.choice(made.members)
    again = name if random.random() < 0.4 else _key_variant(random, name)
    _insert(random, made, (again, random.choice(("null", value, _another_value(random, name)))))


def _smuggle(random: Random, made: Members) -> None:
    """Two names for one: whoever reads the one is not to know of the other."""
    named = [name for name, _ in made.members if json.loads(name) in _NAMES]
    if not named:
        return
    key = random.choice(named)
    values = [quoted(random.choice(PLAIN[:3])), quoted(random.choice(PLAIN + CLOUD))]
    random.shuffle(values)
    made.set(json.loads(key), values[0])
    again = random.choice((key, _key_variant(random, key), _key_variant(random, key)))
    _insert(random, made, (again, values[1]))
    if random.random() < 0.3:
        made.members.append((random.choice((key, again)), "null"))


def _respell(random: Random, made: Members) -> None:
    at = random.randrange(len(made.members))
    name, value = made.members[at]
    made.members[at] = (_key_variant(random, name), value)


def _revalue(random: Random, made: Members) -> None:
    at = random.randrange(len(made.members))
    name, value = made.members[at]
    escaped = random.random() < 0.3 and value.startswith('"')
    made.members[at] = (name, _escaped(random, value) if escaped else _another_value(random, name))


def _add(random: Random, made: Members) -> None:
    name = random.choice(_EVERY_KEY)
    _insert(random, made, (name, _another_value(random, name)))


def _merge(random: Random, made: Members) -> None:
    """The same object twice, which Go makes one of; or a member of one twice."""
    name = '"parameters"' if made.route == "POST /api/create" else '"options"'
    key = random.choice(OPTIONS)
    one, two = (f'"{key}":{random.choice(NUMBERS)}' for _ in "12")
    if random.random() < 0.5:
        other = random.choice(('"seed":1', two, f'"{_cased(random, key)}":1'))
        _insert(random, made, (name, "{" + one + "}"))
        _insert(random, made, (name, random.choice(("null", "{" + other + "}", "{}"))))
    else:
        made.set(
            json.loads(name),
            "{" + one + "," + random.choice((two, f'"{key}":null', _escaped_member(key))) + "}",
        )


def _escaped_member(key: str) -> str:
    return f'"\\u{ord(key[0]):04x}{key[1:]}":9'


_NAMES = ("model", "name", "source", "destination", "from")
_MEMBER_TRICKS = (_twice, _smuggle, _smuggle, _respell, _revalue, _revalue, _add, _add, _merge)

_BEHIND = (
    b"{}",
    b"x",
    b',{"model":"sekret"}',
    b'{"model":"sekret"}',
    b"\x00",
    b" ",
    b"\n",
    b"]",
    b"\xa0",
    b"//",
    b"\x0b",
)
_BEFORE = (
    b"\xef\xbb\xbf",
    b" ",
    b"\r\n\t",
    b"\x0b",
    b"\xa0",
    b"[",
    b"{}",
    b"null",
    b"\x00",
    b")]}',\n",
    b"\xc2\xa0",
)


def _spoiled(random: Random, body: bytes) -> bytes:
    """The bytes of a body, changed after it was written."""
    at = random.randint(0, len(body))
    return random.choice(
        (
            lambda: body + random.choice(_BEHIND),
            lambda: random.choice(_BEFORE) + body,
            lambda: (
                body[:at]
                + random.choice((b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"\x00", b"\x1f"))
                + body[at:]
            ),
            lambda: body[:at],
            lambda: body[:at] + bytes([random.randrange(256)]) + body[at + 1 :],
            lambda: body.decode("utf-8", "replace").encode(
                random.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32"))
            ),
            lambda: b"[" + body + b"]",
            lambda: body[:-1] + b',"deep":' + b"[" * 1500 + b"]" * 1500 + b"}",
            lambda: body[:-1] + b',"deep":' + b'{"a":' * 400 + b"1" + b"}" * 400 + b"}",
            lambda: body[:-1] + b',"long":' + b"9" * 5000 + b"}",
            lambda: body[:-1] + b",}",
            lambda: body.replace(b'"', b"'"),
            lambda: body.replace(b":", b" :\t", 1).replace(b",", b"\n,\r"),
        )
    )()


def strange(random: Random, route: str) -> Sent:
    """A body with one to four tricks in it."""
    if route == FORM:
        return strange_form(random)
    if route == PATH:
        return Sent(route, strange_segment(random))
    made = ordinary(random, route)
    if random.random() < 0.5:
        at = random.randrange(len(made.members))
        if json.loads(made.members[at][0]) in _NAMES:
            made.members[at] = (made.members[at][0], quoted(strange_name(random)))
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        random.choice(_MEMBER_TRICKS)(random, made)
    blank = random.choice(("", "", " ", "\n\t"))
    body = made.body(blank + "," + blank, ":" + blank)
    return Sent(route, _spoiled(random, body) if random.random() < 0.2 else body)


_SEGMENT = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~!$&'()*+,;=:@-")


def strange_segment(random: Random) -> bytes:
    """What the table of routes lets a path's last segment be."""
    name = strange_name(random) if random.random() < 0.7 else random.choice(PLAIN + CLOUD)
    text = "".join(c for c in name if c in _SEGMENT).strip(".") or "x"
    return (text.replace(":", "%3A") if random.random() < 0.5 else text).encode()


# Forms

BOUNDARY = "----oap7MA4YWxkTrZu0gW"
DISPOSITION = "Content-Disposition: form-data; name="
_QUOTED_PRINTABLE = "\r\nContent-Transfer-Encoding: Quoted-Printable"

# Heads of the part that names the model: plain ones, and ones that can be read in two ways.
_PLAIN_HEADS = (
    f'\r\n{DISPOSITION}"model"\r\n\r\n',
    "\r\ncontent-disposition:form-data;name=model\r\n\r\n",
    f'\r\nContent-Type: text/plain; charset=utf-8\r\n{DISPOSITION}"model"\r\n\r\n',
    f'\r\n{DISPOSITION}"model"\r\nContent-Transfer-Encoding: 8bit\r\nContent-Length: 7\r\n\r\n',
)
_ODD_HEADS = (
    f'\r\n{DISPOSITION}"model"\r\nContent-Transfer-Encoding: base64\r\n\r\n',
    f'\r\n{DISPOSITION}"model"{_QUOTED_PRINTABLE}\r\n\r\n',
    f'\r\n{DISPOSITION}"model"\r\nContent-Transfer-Encoding: 8bit{_QUOTED_PRINTABLE}\r\n\r\n',
    f'\r\n{DISPOSITION}"Model"\r\n\r\n',
    f'\r\n{DISPOSITION}"model"; filename=""\r\n\r\n',
    f'\r\n{DISPOSITION}"model"; filename="x"\r\n\r\n',
    f"\r\n{DISPOSITION}\"model\"; filename*=utf-8''\r\n\r\n",
    f"\r\n{DISPOSITION}\"x\"; name*=utf-8''model\r\n\r\n",
    f'\r\n{DISPOSITION}"x"; name*0="mo"; name*1="del"\r\n\r\n',
    f"\r\n{DISPOSITION}\"x\"; filename*=utf-8''model\r\n\r\n",
    f'\r\n{DISPOSITION}"x"; filename="\\"; name=\\"model"\r\n\r\n',
    f'\r\n{DISPOSITION}"mo\\del"\r\n\r\n',
    f'\r\n{DISPOSITION}"mod"; name="el"\r\n\r\n',
    f'\r\n{DISPOSITION}"x"; name="model"\r\n\r\n',
    '\r\nContent-Disposition: attachment; name="model"\r\n\r\n',
    '\r\nContent-Disposition: form-data;\r\n name="model"\r\n\r\n',
    f'\r\n{DISPOSITION}"x"\r\n{DISPOSITION}"model"\r\n\r\n',
    f'\n{DISPOSITION}"model"\n\n',
    f' \r\n{DISPOSITION}"model"\r\n\r\n',
)
_SOUND = (
    f'\r\n{DISPOSITION}"file"; filename="a.wav"\r\nContent-Type: audio/x-wav\r\n\r\nRIFF\x00\xffcl'.encode(
        "latin-1"
    )
)
_PLAIN_TYPES = (
    "multipart/form-data; boundary={}",
    'multipart/form-data;boundary="{}"',
    "Multipart/Form-Data; Boundary={}",
)
_ODD_TYPES = (
    "multipart/form-data; boundary=b; boundary*=utf-8''{}",
    "multipart/form-data; boundary={}; boundary*=utf-8''b",
    "multipart/form-data; boundary*0=a; boundary={}",
    "multipart/form-data; charset=utf-8; boundary={}",
    "multipart/form-data; boundary={}; boundary=b",
    "multipart/mixed; boundary={}",
    "application/x-www-form-urlencoded",
)


def form(parts: list[bytes], boundary: str = BOUNDARY, end: bytes = b"--\r\n") -> bytes:
    return b"\r\n".join(b"--" + boundary.encode() + one for one in [*parts, end])


def strange_form(random: Random) -> Sent:
    """A form with a trick in about every second one."""
    odd = [random.random() < 0.2 for _ in range(4)]
    name = strange_name(random) if random.random() < 0.5 else random.choice(PLAIN + CLOUD)
    head = random.choice(_ODD_HEADS if odd[0] else _PLAIN_HEADS)
    value = name.encode("utf-8", "surrogatepass")
    parts = [head.encode() + (value.replace(b"c", b"=63") if _QUOTED_PRINTABLE in head else value), _SOUND]
    if odd[1]:
        again = random.choice((*_PLAIN_HEADS, *_ODD_HEADS)).encode()
        parts.append(again + random.choice((b"smollm2", b"sekret:cloud")))
    random.shuffle(parts)
    boundary = random.choice((BOUNDARY, "a", "x" * 70, "a'b"))
    if odd[2]:  # within the sound another form, whose boundary may be what the other reader takes
        parts[parts.index(_SOUND)] = (
            _SOUND + b"\r\n" + form([_PLAIN_HEADS[0].encode() + b"sekret:cloud"], "b")
        )
    body = form(parts, boundary, random.choice((b"--\r\n", b"--")))
    content_type = random.choice(_ODD_TYPES if odd[2] else _PLAIN_TYPES).format(boundary)
    if odd[3]:
        body = random.choice(
            (
                b"preamble\r\n" + body,
                body + b"more",
                body.removesuffix(b"\r\n") + b" \r\n",
                body.removesuffix(b"\r\n").removesuffix(b"--"),
                body.replace(b"\r\n", b"\n"),
                body.replace(b"\r\n\r\n", b"\r\n\r\n--" + boundary.encode() + b"\r\n", 1),
                body.replace(b"\r\n\r\n", b"\r\n\n", 1),
                body.replace(b"\r\n", b"\n", 1),
                b"model=smollm2%3Acloud",
            )
        )
    return Sent(FORM, body, content_type)
