"""What a body asks for; whatever could be read otherwise is refused, and what looks like it is not."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from proxy.errors import ProxyError
from proxy.policy.body import Facts, facts_of_path, read_body
from proxy.policy.model_names import ModelName
from proxy.policy.routes import ROUTES, ModelPlace, Route

ROWS = {f"{route.method} {route.path}": route for route in ROUTES}
CHAT, SHOW, CREATE, COPY = (ROWS[f"POST /api/{name}"] for name in ("chat", "show", "create", "copy"))
PULL, PUSH, MESSAGES = ROWS["POST /api/pull"], ROWS["POST /api/push"], ROWS["POST /v1/messages"]
RESPONSES = ROWS["POST /v1/responses"]
WITH_BODY = [
    route for route in ROUTES if route.model not in (ModelPlace.NONE, ModelPlace.PATH, ModelPlace.FORM_MODEL)
]


def read(body: str | bytes, route: Route = CHAT) -> Facts:
    return read_body(route, body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass"))


def refused(body: str | bytes, route: Route = CHAT) -> str:
    with pytest.raises(ProxyError) as caught:
        read(body, route)
    assert (caught.value.code, caught.value.status) == ("unreadable_body", 400)
    return caught.value.message


# What is read


@pytest.mark.parametrize("route", WITH_BODY, ids=lambda route: route.path)
def test_the_model_is_found_on_every_route(route: Route) -> None:
    body = {"model": "Llama3.2"} if route is not COPY else {"source": "Llama3.2", "destination": "acme/x"}
    names = read(json.dumps(body), route).names
    assert names[0] == ModelName("llama3.2:latest", False)
    assert names[1:] == ((ModelName("acme/x:latest", False),) if route is COPY else ())


@pytest.mark.parametrize("route", WITH_BODY, ids=lambda route: route.path)
def test_the_name_stands_in_for_the_model_only_where_ollama_lets_it(route: Route) -> None:
    if route.model in (ModelPlace.BODY_MODEL_OR_NAME, ModelPlace.BODY_CREATE):
        for body in (
            '{"name":"x"}',
            '{"name":"x","model":""}',
            '{"name":"x","model":null}',
            '{"name":"x","model":"x"}',
        ):
            assert read(body, route).names == (ModelName("x:latest", False),)
        assert "differ" in refused('{"model":"x","name":"y"}', route)
        assert "differ" in refused('{"model":"x","name":"x:latest"}', route)
        assert read('{"model":"x","name":""}', route).names == (ModelName("x:latest", False),)
    elif route is not COPY:
        assert "'model' is missing" in refused('{"name":"x"}', route)
        assert read('{"model":"x","name":"y"}', route).names == (ModelName("x:latest", False),)


@pytest.mark.parametrize("route", [route for route in WITH_BODY if route not in (PUSH, COPY, CREATE)])
def test_most_routes_take_a_name_as_a_reference(route: Route) -> None:
    assert read('{"model":" x:local "}', route).names == (ModelName("x:latest", False),)
    assert read('{"model":"x: Cloud"}', route).names == (ModelName("x:cloud", True),)


def test_push_copy_and_creates_target_take_it_as_it_stands_but_creates_source_as_a_reference() -> None:
    assert read('{"model":"x:local"}', PUSH).names == (ModelName("x:local", False),)
    assert read('{"model":" x"}', PUSH).names == (ModelName("", False),)
    assert read('{"source":"x:local","destination":"y:cloud"}', COPY).names == (
        ("x:local", False),
        ("y:cloud", True),
    )
    assert read('{"model":"x:local","from":"y:local"}', CREATE).names == (
        ("x:local", False),
        ("y:latest", False),
    )
    assert read('{"model":"x","from":"y:cloud"}', CREATE).names == (("x:latest", False), ("y:cloud", True))
    assert read('{"model":"x","from":null}', CREATE).names == (("x:latest", False),)
    assert read('{"model":"x","from":""}', CREATE).names == (("x:latest", False),)


@pytest.mark.parametrize(
    "body", ['{"source":"x"}', '{"destination":"x"}', '{"source":"x","destination":" "}']
)
def test_copy_needs_both_its_names(body: str) -> None:
    assert "is missing or empty" in refused(body, COPY)


def test_creates_remote_host_is_seen() -> None:
    assert read('{"model":"x","remote_host":"https://ollama.com"}', CREATE).remote
    assert read('{"model":"x","remote_host":" "}', CREATE).remote
    assert not read('{"model":"x","remote_host":""}', CREATE).remote
    assert not read('{"model":"x","remote_host":null}', CREATE).remote
    assert not read('{"model":"x","remote_host":"https://ollama.com"}', CHAT).remote


def test_flags_are_seen() -> None:
    assert read('{"model":"x","insecure":true}', PULL).insecure
    assert not read('{"model":"x","insecure":false}', PULL).insecure
    assert not read('{"model":"x","insecure":null}', PULL).insecure
    assert read('{"model":"x","_debug_render_only":true}').debug
    assert not read('{"model":"x"}').debug


def test_options_are_seen_as_they_stand() -> None:
    body = '{"model":"x","options":{"num_ctx":4096,"num_predict":1e2,"num_gpu":null,"seed":1,"NUM_THREAD":1}}'
    assert read(body).options == {"num_ctx": 4096, "num_predict": 100.0}
    assert type(read(body).options["num_predict"]) is float
    assert read('{"model":"x","options":null}').options == {}
    assert read('{"model":"x","parameters":{"num_ctx":1}}').options == {}
    assert read('{"model":"x","parameters":{"num_ctx":1},"options":{"num_ctx":2}}', CREATE).options == {
        "num_ctx": 1
    }
    body = '{"model":"x","max_tokens":5,"max_output_tokens":"6","max_completion_tokens":7,"keep_alive":"5m"}'
    assert read(body).options == {"max_tokens": 5, "max_output_tokens": "6", "max_completion_tokens": 7}
    assert read(body).keep_alive == "5m"
    assert read('{"model":"x","keep_alive":null}').keep_alive is None


@pytest.mark.parametrize("value", ["[4096]", '{"a":1}', '"' + "9" * 65 + '"'])
def test_of_an_option_that_is_neither_a_number_nor_short_nothing_is_kept(value: str) -> None:
    found = read(f'{{"model":"x","options":{{"num_ctx":{value}}},"keep_alive":{value}}}')
    assert (found.options["num_ctx"], found.keep_alive) == ("?", "?")


@pytest.mark.parametrize("route", [MESSAGES, RESPONSES], ids=lambda route: route.path)
@pytest.mark.parametrize(
    ("tools", "found"),
    [
        ('[{"type":"web_search"}]', True),
        ('[{"type":"web_search_20250305","name":"web_search"}]', True),
        ('[{"type":"web_fetch_20250910"}]', True),
        ('[{"type":"function","name":"x"},{"type":"web_search"}]', True),
        ('[{"type":"Web_Search"}]', True),
        ('[{"type":"web_\\u0073earch"}]', True),
        ('[{"type":" web_search"}]', True),
        ('[{"type":"\\u00a0\\tweb_search_20250305\\n"}]', True),
        ('[{"type":"web_\\u017fearch"}]', True),
        ('[{"type":"namespace","tools":[{"type":"web_search"}]}]', True),
        ('[{"type":"namespace","tools":[{"type":"namespace","tools":[{"type":"web_search"}]}]}]', True),
        ('[{"type":"function","name":"web_search","parameters":{"type":"web_search"}}]', False),
        ('[{"name":"web_search","input_schema":{"type":"object","Type":1,"type":"web_search"}}]', False),
        ('[{"type":"custom","name":"web_fetch"}]', False),
        ('[{"type":"my_web_search"}]', False),
        ('[{"type":null}]', False),
        ('[{"type":"namespace","tools":null}]', False),
        ("[{}]", False),
        ("[]", False),
        ("null", False),
    ],
)
def test_tools_that_ollama_serves_itself_are_told_from_those_of_the_user(
    route: Route, tools: str, found: bool
) -> None:
    assert read(f'{{"model":"x","tools":{tools}}}', route).web_tools is found


def test_a_tool_is_seen_as_deep_as_bodies_are_read() -> None:
    for depth in (1, 50, 300):
        inner = '{"type":"namespace","tools":[' * depth + '{"type":"web_search"}' + "]}" * depth
        assert read(f'{{"model":"x","tools":[{inner}]}}', RESPONSES).web_tools


def test_on_other_routes_no_tool_is_ollamas() -> None:
    for tools in ('[{"type":"web_search"}]', '[{"Type":1}]', '"any"', "[null]"):
        assert not read(f'{{"model":"x","tools":{tools}}}').web_tools


@pytest.mark.parametrize("segment", [b"x:cloud", b"x%3Acloud", b"x:7b:cloud", b"X:7B-Cloud"])
def test_a_path_names_a_cloud_model_like_a_body_does(segment: bytes) -> None:
    assert facts_of_path(segment).names[0].cloud


def test_a_path_names_a_model() -> None:
    assert facts_of_path(b"Llama3.2%3A7b").names == (ModelName("llama3.2:7b", False),)
    assert facts_of_path(b"llama3.2:local").names == (ModelName("llama3.2:latest", False),)
    assert facts_of_path(b"a@b").names == (ModelName("", False),)


# What is refused, beside what looks alike and is not

GOOD = '{"model":"x"}'
REFUSED: dict[str, tuple[str | bytes, str | bytes]] = {
    "nothing": ("", GOOD),
    "blanks": (" \n", " \t\r\n" + GOOD + " \t\r\n"),
    "an array": ('[{"model":"x"}]', GOOD),
    "a text": ('"model"', GOOD),
    "null": ("null", GOOD),
    "a second value": (GOOD + GOOD, GOOD),
    "a word behind it": (GOOD + "x", GOOD + " "),
    "a comma behind it": (GOOD + ",", GOOD + "\n"),
    "a nul behind it": (GOOD + "\0", GOOD),
    "a blank that is not JSON's": (GOOD + "\x0b", GOOD + "\t"),
    "a no-break space": ("\xa0" + GOOD, " " + GOOD),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD.encode(), GOOD),
    "UTF-16": (GOOD.encode("utf-16"), GOOD.encode("utf-8")),
    "UTF-16 without a mark": (GOOD.encode("utf-16-le"), GOOD),
    "UTF-32": (GOOD.encode("utf-32-be"), GOOD),
    "Latin-1": ('{"model":"x","prompt":"ü"}'.encode("latin-1"), '{"model":"x","prompt":"ü"}'),
    "a byte that is no UTF-8": (b'{"model":"x","prompt":"\xff"}', '{"model":"x","prompt":"\ufffd"}'),
    "an overlong slash": (b'{"model":"a\xc0\xafb"}', '{"model":"a/b"}'),
    "half a pair in UTF-8": (b'{"model":"x","prompt":"\xed\xa0\xbd"}', '{"model":"x","prompt":"\\ud83d"}'),
    "half a body": ('{"model":"x"', GOOD),
    "a comment": ('{"model":"x"/**/}', '{"model":"x/**/"}'),
    "a comma at the end": ('{"model":"x",}', GOOD),
    "single quotes": ("{'model':'x'}", '{"model":"\'x\'"}'),
    "a bare name": ('{model:"x"}', GOOD),
    "NaN": ('{"model":"x","seed":NaN}', '{"model":"x","seed":"NaN"}'),
    "Infinity": ('{"model":"x","seed":Infinity}', '{"model":"x","seed":1e400}'),
    "-Infinity": ('{"model":"x","seed":-Infinity}', '{"model":"x","seed":-1e400}'),
    "a leading zero": ('{"model":"x","seed":01}', '{"model":"x","seed":0.1}'),
    "a plus sign": ('{"model":"x","seed":+1}', '{"model":"x","seed":1e+1}'),
    "a number in hexadecimal": ('{"model":"x","seed":0x1}', '{"model":"x","seed":10}'),
    "a number without end": (
        '{"model":"x","seed":' + "1" * 5000 + "}",
        '{"model":"x","seed":' + "1" * 4000 + "}",
    ),
    "other digits": ('{"model":"x","seed":\u0661}', '{"model":"x","seed":"\u0661"}'),
    "a line break in a text": ('{"model":"x","prompt":"a\nb"}', '{"model":"x","prompt":"a\\nb"}'),
    "an escape that is none": ('{"model":"x","prompt":"\\x41"}', '{"model":"x","prompt":"\\\\x41"}'),
    "half an escape": ('{"model":"x","prompt":"\\u12"}', '{"model":"x","prompt":"\\u1234"}'),
    "too deep": (
        '{"model":"x","a":' + "[" * 5000 + "]" * 5000 + "}",
        '{"model":"x","a":' + "[" * 500 + "]" * 500 + "}",
    ),
    "the model twice": ('{"model":"x","model":"y"}', '{"model":"x","models":"y"}'),
    "the model twice, alike": ('{"model":"x","model":"x"}', GOOD),
    "the model twice, null": ('{"model":"x","model":null}', '{"model":"x","name":null}'),
    "the model twice, one escaped": ('{"model":"x","m\\u006fdel":"y"}', '{"m\\u006fdel":"x"}'),
    "the model twice, one in capitals": ('{"model":"x","Model":"y"}', '{"model":"x","Mode":"y"}'),
    "the model in capitals": ('{"Model":"x"}', GOOD),
    "the name in capitals": ('{"model":"x","NAME":"x"}', '{"model":"x","NAMES":"x"}'),
    "the source with a long s": (
        '{"source":"x","destination":"y","\u017fource":"z"}',
        '{"model":"x","fource":"z"}',
    ),
    "a long s alone": ('{"model":"x","option\u017f":{}}', '{"model":"x","option\u0161":{}}'),
    "a Kelvin sign": ('{"model":"x","\u212aeep_alive":0}', '{"model":"x","\u03baeep_alive":0}'),
    "an escaped Kelvin sign": ('{"model":"x","max_to\\u212aens":0}', '{"model":"x","max_to\\u212bens":0}'),
    "From": ('{"model":"x","From":"y"}', '{"model":"x","from ":"y"}'),
    "Remote_Host": ('{"model":"x","Remote_Host":""}', '{"model":"x","RemoteHost":""}'),
    "Tools": ('{"model":"x","Tools":[]}', '{"model":"x","Tool":[]}'),
    "any member twice": (
        '{"model":"x","stream":true,"stream":false}',
        '{"model":"x","stream":true,"streams":1}',
    ),
    "any member twice, in capitals": ('{"model":"x","a":1,"A":1}', '{"model":"x","A":1}'),
    "the options twice": (
        '{"model":"x","options":{"num_ctx":1},"options":{"seed":1}}',
        '{"model":"x","options":{"num_ctx":1,"seed":1}}',
    ),
    "the options twice, null": ('{"model":"x","options":{},"options":null}', '{"model":"x","options":null}'),
    "an option twice": (
        '{"model":"x","options":{"num_ctx":1,"num_ctx":2}}',
        '{"model":"x","options":{"num_ctx":1,"NUM_CTX":2}}',
    ),
    "options in an array": ('{"model":"x","options":[]}', '{"model":"x","options":{}}'),
    "options as a text": ('{"model":"x","options":"{}"}', '{"model":"x","option":"{}"}'),
    "a model that is a number": ('{"model":1}', '{"model":"1"}'),
    "a model that is a list": ('{"model":["x"]}', GOOD),
    "a model that is an object": ('{"model":{"name":"x"}}', GOOD),
    "a model that is true": ('{"model":true}', '{"model":"true"}'),
    "no model": ('{"prompt":"x"}', GOOD),
    "null for a model": ('{"model":null}', '{"model":"null"}'),
    "an empty model": ('{"model":""}', GOOD),
    "a blank model": ('{"model":" \\u00a0\\n"}', '{"model":" x"}'),
    "insecure as a text": ('{"model":"x","insecure":"true"}', '{"model":"x","insecure":true}'),
    "insecure as a number": ('{"model":"x","insecure":1}', '{"model":"x","insecure":false}'),
    "_debug_render_only as a number": ('{"model":"x","_debug_render_only":0}', '{"model":"x","_debug":0}'),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_could_be_read_in_two_ways_is_refused_and_what_looks_alike_is_not(what: str) -> None:
    bad, good = REFUSED[what]
    refused(bad)
    assert read(good).names


@pytest.mark.parametrize("route", [MESSAGES, RESPONSES], ids=lambda route: route.path)
@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ('{"type":"function"}', '[{"type":"function"}]'),
        ('"web_search"', "null"),
        ("[null]", "[]"),
        ('["web_search"]', "[]"),
        ('[{"Type":"web_search"}]', '[{"Types":"web_search"}]'),
        ('[{"type":"function","Type":"web_search"}]', '[{"type":"function","kind":"web_search"}]'),
        ('[{"type":"web_search","type":"function"}]', '[{"type":"function"}]'),
        ('[{"type":"function","a":1,"a":1}]', '[{"type":"function","a":{"b":1,"b":1}}]'),
        ('[{"type":["web_search"]}]', '[{"type":"x"}]'),
        ('[{"type":"namespace","Tools":[]}]', '[{"type":"namespace","tools":[]}]'),
        ('[{"type":"namespace","tool\u017f":[]}]', '[{"type":"namespace","tool":[]}]'),
        ('[{"type":"namespace","tools":{}}]', '[{"type":"namespace","tools":null}]'),
    ],
)
def test_a_tool_that_could_be_read_in_two_ways_is_refused(route: Route, bad: str, good: str) -> None:
    refused(f'{{"model":"x","tools":{bad}}}', route)
    assert not read(f'{{"model":"x","tools":{good}}}', route).web_tools


@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_repeats_nothing_of_the_body(what: str) -> None:
    bad, _ = REFUSED[what]
    text = bad if isinstance(bad, str) else bad.decode("latin-1")
    secret = "Zq9vXsekret"
    spoiled = text.replace('"x"', f'"{secret}"')
    if spoiled != text:
        assert secret not in refused(spoiled if isinstance(bad, str) else spoiled.encode("latin-1"))


def test_a_refusal_holds_on_to_nothing_of_the_body() -> None:
    with pytest.raises(ProxyError) as caught:
        read('{"model":"x","prompt":"sekret')
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


# Any body

plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
anything = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
)


@given(
    st.sampled_from(WITH_BODY),
    st.one_of(st.binary(max_size=60), anything.map(lambda v: json.dumps(v).encode())),
)
def test_any_bytes_are_read_or_refused_and_never_a_fault(route: Route, body: bytes) -> None:
    with suppress(ProxyError):
        assert isinstance(read_body(route, body), Facts)


KNOWN = ["model", "name", "options", "keep_alive", "tools", "from", "source", "destination", "remote_host"]


@given(st.dictionaries(st.text(max_size=8), anything, max_size=4), st.booleans())
@example({"\ud83d": "\ud83d"}, True)
def test_members_that_nobody_reads_may_be_anything(more: dict[str, Any], escaped: bool) -> None:
    folded = [name.casefold() for name in more]
    assume(len(set(folded)) == len(folded))
    body = json.dumps(
        {"model": "x", **{f"x{name}": value for name, value in more.items()}}, ensure_ascii=escaped
    )
    assume("NaN" not in body and "Infinity" not in body)
    assume(escaped or not re.search("[\ud800-\udfff]", body))
    assert read(body).names == (ModelName("x:latest", False),)


@given(st.sampled_from(KNOWN), st.data())
def test_a_known_member_in_any_other_case_is_refused(name: str, data: st.DataObject) -> None:
    letters = {"s": "sS\u017f", "k": "kK\u212a"}
    spelled = "".join(data.draw(st.sampled_from(letters.get(c, c + c.upper()))) for c in name)
    assume(spelled != name)
    refused(json.dumps({"model" if name != "model" else "other": "x", spelled: None}), SHOW)


@given(st.text(max_size=20))
def test_a_model_is_read_alike_however_its_letters_are_written(name: str) -> None:
    assume(name.strip())
    escaped = "".join(f"\\u{unit:04x}" for unit in _utf16(name))
    plain = json.dumps({"model": name})
    try:
        expected = read(plain).names
    except ProxyError:
        refused(f'{{"model":"{escaped}"}}')
    else:
        assert read(f'{{"model":"{escaped}"}}').names == expected


def _utf16(text: str) -> list[int]:
    encoded = text.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(encoded[at : at + 2], "big") for at in range(0, len(encoded), 2)]
