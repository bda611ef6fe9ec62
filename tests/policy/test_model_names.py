"""Which spellings mean the same model, which mean the cloud, and which models a pattern takes."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.policy.model_names import ModelName, Reading, matcher, read_name, trimmed

REFERENCE, AS_WRITTEN = Reading.REFERENCE, Reading.AS_WRITTEN

# shared names of one model, as inference, show, pull and delete read them
SAME = [
    "llama3.2",
    "llama3.2:latest",
    "LLAMA3.2:Latest",
    "library/llama3.2",
    "Library/llama3.2:latest",
    "registry.ollama.ai/library/llama3.2",
    "registry.ollama.ai/library/llama3.2:latest",
    "REGISTRY.OLLAMA.AI/LIBRARY/LLAMA3.2:LATEST",
    "https://registry.ollama.ai/library/llama3.2",
    "http://registry.ollama.ai/library/llama3.2",
    "foo://registry.ollama.ai/library/llama3.2",
    "://registry.ollama.ai/library/llama3.2",
    "foo:///library/llama3.2",
    " llama3.2 ",
    "\t\n\v\f\r\x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000llama3.2\u3000",
    "llama3.2:local",
    "llama3.2:LOCAL",
    "llama3.2: local",
    "llama3.2:\xa0Local\u2003",
    "llama3.2:latest:local",
    "registry.ollama.ai/library/llama3.2:local",
]

# text | canonical name | whether it runs in the cloud
REFERENCES = {
    "llama3.2:7b": ("llama3.2:7b", False),
    "acme/llama:7B": ("acme/llama:7b", False),
    "hf.co/acme/Llama": ("hf.co/acme/llama:latest", False),
    "hf.co/acme/Llama-GGUF:Q4_K_M": ("hf.co/acme/llama-gguf:q4_k_m", False),
    "localhost:5000/acme/x": ("localhost:5000/acme/x:latest", False),
    "https://localhost:5000/acme/x:1": ("localhost:5000/acme/x:1", False),
    "registry.ollama.ai:443/library/x": ("registry.ollama.ai:443/library/x:latest", False),
    "hf.co/library/x": ("hf.co/library/x:latest", False),
    "library": ("library:latest", False),
    "library/library": ("library:latest", False),
    "_x/_y:_z": ("_x/_y:_z", False),
    "my-cloud-model": ("my-cloud-model:latest", False),
    "x-cloud": ("x-cloud:latest", False),
    "cloud": ("cloud:latest", False),
    "cloud/x": ("cloud/x:latest", False),
    "x:cloudy": ("x:cloudy", False),
    "x:mycloud": ("x:mycloud", False),
    "x:cloud7b": ("x:cloud7b", False),
    "x:locale": ("x:locale", False),
    "x:7b-local": ("x:7b-local", False),
    "a:cloud/b/c": ("a:cloud/b/c:latest", False),
    "a:x-cloud/b/c:1": ("a:x-cloud/b/c:1", False),
    "h:5000/acme/x-cloud": ("h:5000/acme/x-cloud:latest", False),
    "x:cloud": ("x:cloud", True),
    "X:CLOUD": ("x:cloud", True),
    "x: cloud": ("x:cloud", True),
    "x:\xa0cloud ": ("x:cloud", True),
    "x:\u2003Cloud\u3000": ("x:cloud", True),
    "x:7b:cloud": ("x:7b-cloud", True),
    "x:7b-cloud": ("x:7b-cloud", True),
    "x:7b-CLOUD": ("x:7b-cloud", True),
    "x: 7b-cloud": ("x:7b-cloud", True),
    "x:7b: cloud": ("x:7b-cloud", True),
    "library/x:cloud": ("x:cloud", True),
    "https://registry.ollama.ai/library/x:cloud": ("x:cloud", True),
    "hf.co/acme/x:cloud": ("hf.co/acme/x:cloud", True),
    "h:1/acme/x:cloud": ("h:1/acme/x:cloud", True),
    "x:latest-cloud": ("x:latest-cloud", True),
}

NO_NAMES = [
    *(
        "",
        " ",
        ":",
        "/",
        "//",
        "a/",
        "/a",
        "//a",
        "/a/b",
        "a//b",
        "a/b/c/d",
        ":7b",
        "a:",
        "a: ",
        "a:7b:",
        "a :7b",
    ),
    *(
        "-a",
        ".a",
        "a:-7b",
        "a:.7b",
        "a/-b",
        "-a/b",
        ".a/b",
        "a.b/c",
        "-h/a/b",
        "a b",
        "a\tb",
        "a\x00",
        "a\nb",
    ),
    *(
        "a@sha256:" + "0" * 64,
        "a:b@c",
        "a%3Ab",
        "a\\b",
        "../a",
        "a/../b",
        "hf.co/a.b/c",
        "höhe",
        "a:ü",
        "a/b:c/d",
    ),
    *(
        "\u017fmollm2",
        "llama\u212a",
        "a\u200b",
        "\u200ba",
        "\ufeffa",
        "a\u180e",
        "a\x1c",
        "a\ud83d",
        "a\ufffd",
    ),
    *(
        "x" * 81,
        "x:" + "y" * 81,
        "x" * 81 + "/y",
        "x" * 351 + "/a/b",
        "http://a/b",
        "s3://a",
        "a://b://c/d/e",
    ),
    *("x:local:local", "x:7b-cloud:local"),
]


@pytest.mark.parametrize("text", SAME, ids=ascii)
def test_every_spelling_of_a_model_means_that_model(text: str) -> None:
    assert read_name(text, REFERENCE) == ModelName("llama3.2:latest", False)


@pytest.mark.parametrize("text", REFERENCES, ids=ascii)
def test_a_name_means_one_model_in_one_place(text: str) -> None:
    assert read_name(text, REFERENCE) == ModelName(*REFERENCES[text])


@pytest.mark.parametrize("text", NO_NAMES, ids=ascii)
@pytest.mark.parametrize("reading", Reading)
def test_what_is_no_name_means_no_model(text: str, reading: Reading) -> None:
    assert read_name(text, reading).canonical == ""


@pytest.mark.parametrize(
    "text", ["x:local:cloud", "x:cloud:cloud", "x:cloud-cloud", "x:local-cloud", "x:cloud:local"]
)
def test_two_suffixes_are_no_name_and_count_as_the_cloud_where_one_of_them_does(text: str) -> None:
    assert read_name(text, REFERENCE) == ModelName("", True)


@pytest.mark.parametrize("length", [80, 350])
def test_a_part_may_be_as_long_as_ollama_lets_it_be(length: int) -> None:
    for text in (["x" * 80, "a:" + "x" * 80, "x" * 80 + "/a"], ["x" * 350 + "/a/b"])[length == 350]:
        assert read_name(text, REFERENCE).canonical


@pytest.mark.parametrize(
    ("text", "canonical", "cloud"),
    [
        ("Acme/X", "acme/x:latest", False),
        ("x:local", "x:local", False),
        ("x:7b:local", "", False),
        (" x", "", False),
        ("x ", "", False),
        ("x: 7b", "", False),
        ("x:cloud", "x:cloud", True),
        ("x:7b-Cloud", "x:7b-cloud", True),
        ("x: cloud", "", True),
        ("https://registry.ollama.ai/library/x", "x:latest", False),
    ],
)
def test_copy_push_and_creates_target_take_a_name_as_it_stands(
    text: str, canonical: str, cloud: bool
) -> None:
    assert read_name(text, AS_WRITTEN) == ModelName(canonical, cloud)


texts = st.text(
    st.one_of(st.sampled_from("aAbB019:/._- \u017f\u212a\u0130\xa0\u200b\x00@%"), st.characters()),
    max_size=30,
)
names = st.from_regex(
    r"([a-zA-Z0-9_][a-zA-Z0-9_.-]{0,9}/)?[a-zA-Z0-9_]{1,9}/[a-zA-Z0-9_.]{1,9}(:[a-z0-9_]{1,9})?",
    fullmatch=True,
)


@given(texts, st.sampled_from(Reading))
def test_any_text_is_read_without_a_fault_and_to_plain_letters(text: str, reading: Reading) -> None:
    name = read_name(text, reading).canonical
    assert set(name) <= set(string.ascii_lowercase + string.digits + "_-.:/")
    assert name.count("/") <= 2


@given(st.one_of(texts, names), st.sampled_from(Reading))
@example("x:7b:cloud", REFERENCE)
def test_a_canonical_name_is_its_own_canonical_name(text: str, reading: Reading) -> None:
    found = read_name(text, reading)
    if found.canonical and not found.canonical.endswith(":local"):
        assert read_name(found.canonical, reading) == found


@given(
    names, st.text(st.sampled_from(" \t\n\xa0\u3000"), max_size=3), st.sampled_from(["", ":local", ": LOCAL"])
)
def test_case_blanks_and_the_word_local_never_make_another_model(name: str, blanks: str, suffix: str) -> None:
    spelled = blanks + name.swapcase() + suffix + blanks
    assert read_name(spelled, REFERENCE) == read_name(name, REFERENCE)


@given(names, st.sampled_from([":cloud", ":x-cloud", ": Cloud", ":\xa0x-CLOUD "]))
def test_a_cloud_suffix_is_seen_in_every_spelling(name: str, suffix: str) -> None:
    assert read_name(name + suffix, REFERENCE).cloud
    assert read_name(name + suffix, AS_WRITTEN).cloud


def test_trimming_takes_the_blanks_that_go_takes_and_no_others() -> None:
    """Unicode's white space; Python alone counts four control characters among it."""
    taken = [letter for letter in map(chr, range(0x110000)) if not trimmed(letter)]
    assert taken == [c for c in map(chr, range(0x110000)) if c.isspace() and not "\x1c" <= c <= "\x1f"]
    assert trimmed("\u3000a b\x85\n") == "a b"


# Patterns: pattern | what it takes | what it does not

PATTERNS = {
    "llama3.2": (
        ["llama3.2:latest"],
        ["llama3.2:7b", "llama3.2:cloud", "llama3:latest", "acme/llama3.2:latest"],
    ),
    "LLaMA3.2:Latest": (["llama3.2:latest"], ["llama3.2:7b"]),
    "library/llama3.2": (["llama3.2:latest"], ["acme/llama3.2:latest", "hf.co/library/llama3.2:latest"]),
    "registry.ollama.ai/library/llama3.2": (["llama3.2:latest"], ["llama3.2:7b"]),
    "https://registry.ollama.ai/library/llama3.2": (["llama3.2:latest"], ["llama3.2:7b"]),
    "registry.ollama.ai/acme/x": (["acme/x:latest"], ["x:latest", "hf.co/acme/x:latest"]),
    "llama3.2:*": (
        ["llama3.2:latest", "llama3.2:7b", "llama3.2:cloud"],
        ["llama3.20:7b", "acme/llama3.2:7b"],
    ),
    "llama3.2*": (["llama3.2:latest", "llama3.2-vision:7b"], ["llama3:latest", "acme/llama3.2:x"]),
    "llama3.2:7b*": (
        ["llama3.2:7b", "llama3.2:7b-cloud", "llama3.2:7b-q4"],
        ["llama3.2:latest", "llama3.2:17b"],
    ),
    "*": (["llama3.2:latest", "acme/x:1", "hf.co/acme/x:1", "x:cloud"], []),
    "*:latest": (["llama3.2:latest"], ["llama3.2:7b", "acme/x:latest"]),
    "*:cloud": (["x:cloud"], ["x:latest", "x:7b-cloud", "acme/x:cloud"]),
    "*:*-cloud": (["x:7b-cloud"], ["x:cloud", "x:7b"]),
    "gpt-oss:cloud": (["gpt-oss:cloud"], ["gpt-oss:latest", "gpt-oss:120b-cloud"]),
    "gpt-oss:120b:cloud": (["gpt-oss:120b-cloud"], ["gpt-oss:120b", "gpt-oss:cloud"]),
    "llama3.2:local": (["llama3.2:latest"], ["llama3.2:local", "llama3.2:7b"]),
    "acme/*": (
        ["acme/x:latest", "acme/y:7b"],
        ["x:latest", "acme:latest", "hf.co/acme/x:latest", "acmee/x:1"],
    ),
    "*/*": (["acme/x:latest"], ["x:latest", "hf.co/acme/x:latest"]),
    "hf.co/acme/*": (["hf.co/acme/x:latest", "hf.co/acme/y:q4"], ["acme/x:latest", "hf.co/other/x:latest"]),
    "hf.co/*/*": (["hf.co/acme/x:q4"], ["hf.io/acme/x:q4", "acme/x:q4"]),
    "hf.co/*": ([], ["hf.co/acme/x:latest", "x:latest"]),
    "localhost:5000/acme/*": (["localhost:5000/acme/x:1"], ["localhost/acme/x:1", "localhost:5001/acme/x:1"]),
    "llama3.?": (
        ["llama3.2:latest", "llama3.1:latest"],
        ["llama3.22:latest", "llama3.2:7b", "llama3.:latest"],
    ),
    "llama3.[12]:*b": (["llama3.1:7b", "llama3.2:70b"], ["llama3.3:7b", "llama3.1:latest"]),
    "llama3.[!12]": (["llama3.3:latest"], ["llama3.1:latest"]),
    "[a/b]": ([], ["a:latest", "b:latest", "a/b:latest"]),
    "ll?ma*": (["llama:1"], ["ll/ma:1", "ll/ama:latest"]),
    "llama3+2": ([], ["llama3.2:latest", "llama332:latest"]),
    "llama.*": ([], ["llama3:latest", "llama:latest"]),
    "": ([], ["llama3.2:latest"]),
    "**": (["llama3.2:7b"], ["acme/x:1"]),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_takes_these_models_and_not_those(pattern: str) -> None:
    takes, leaves = PATTERNS[pattern]
    allowed = matcher((pattern,))
    assert [name for name in takes if not allowed(name)] == []
    assert [name for name in leaves if allowed(name)] == []


@pytest.mark.parametrize("text", SAME, ids=ascii)
def test_a_pattern_may_be_written_like_a_name(text: str) -> None:
    if (
        text == text.strip()
        and not text.startswith(("foo:///", "://"))
        and ": " not in text
        and ":\xa0" not in text
    ):
        assert matcher((text,))("llama3.2:latest")


def test_one_of_several_patterns_is_enough_and_none_takes_nothing() -> None:
    allowed = matcher(("llama3.2", "acme/*"))
    assert allowed("llama3.2:latest")
    assert allowed("acme/x:7b")
    assert not allowed("x:latest")
    assert not matcher(())("llama3.2:latest")
    assert matcher(("llama3.2", "*"))("hf.co/acme/x:1")


segment = st.text(st.sampled_from("ab*?[]!-.1"), min_size=1, max_size=6)


@given(st.lists(segment, min_size=1, max_size=3), names)
@example(["a*b"], "a/b:latest")
@example(["[!a]*"], "b/c:latest")
def test_no_pattern_but_the_lone_star_takes_a_name_across_a_slash(segments: list[str], name: str) -> None:
    pattern = "/".join(segments)
    canonical = read_name(name, REFERENCE).canonical
    if pattern != "*" and canonical and matcher((pattern,))(canonical):
        written = [one for one in segments if one not in ("library", "registry.ollama.ai")]
        assert canonical.count("/") == len(written) - 1


@given(names)
def test_a_name_as_a_pattern_takes_that_model_and_no_other(name: str) -> None:
    canonical = read_name(name, REFERENCE).canonical
    if canonical:
        allowed = matcher((name,))
        assert allowed(canonical)
        assert not allowed(f"x{canonical}")
        assert not allowed(f"{canonical}x")
        assert not allowed(canonical.partition(":")[0] + ":other")
