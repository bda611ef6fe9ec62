"""The configuration: what is read, and that every fault is told, at once, with its place."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jose import jwk
from pydantic import ValidationError

from proxy.config import Config, ConfigError, load
from proxy.config.fault import Fault
from proxy.config.issuers import JwtTable
from proxy.config.sources import known, variable
from proxy.config.values import Address, UpstreamUrl
from proxy.identity.issuer import Issuer
from proxy.store.errors import StoreError
from proxy.store.schema import prepare
from proxy.tls import ensure_self_signed

from . import certificates

FAULTS = Path(__file__).parent / "config_faults"
FAULT_FILES = sorted(FAULTS.glob("*.toml"))
MESSAGE = "#: "  # begins the lines of a bad file that say what must be reported
SECRET = "hunter2"
ISSUER = '[[auth.jwt]]\nissuer = "https://id.example.com"\naudience = "ollama"\ndiscovery = true\n'


def write(folder: Path, text: str) -> Path:
    file = folder / "config.toml"
    file.write_text(text, "utf-8")
    return file


def read(folder: Path, text: str = "", **environ: str) -> Config:
    return load(write(folder, text), environ)


def faults(folder: Path, text: str = "", **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        read(folder, text, **environ)
    return str(raised.value).replace(f"{folder}/", "").splitlines()


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the bad configurations name."""
    folder = tmp_path_factory.mktemp("surroundings")
    key = certificates.ec_key()
    certificates.write_pair(folder, "tls", key)
    certificates.write_pair(folder, "weak", certificates.rsa_key(1024))
    (folder / "rsa.key").write_bytes(certificates.private_key(certificates.rsa_key(2048)))
    (folder / "other.key").write_bytes(certificates.private_key(certificates.ec_key()))
    (folder / "encrypted.key").write_bytes(certificates.private_key(key, SECRET.encode()))
    (folder / "garbage.pem").write_text("not a certificate and not a key\n")
    (folder / "empty").write_text("\n")
    (folder / "nothing.toml").touch()
    (folder / "two-words").write_text(f"{SECRET} {SECRET}\n")
    (folder / "folder").mkdir()
    (folder / "ca.pem").write_bytes(certificates.Authority().certificate)
    keys_for_jwts(folder)
    return folder


def keys_for_jwts(folder: Path) -> None:
    """The files that the tables [[auth.jwt]] name, good and bad ones."""
    ec, rsa = certificates.ec_key(), certificates.rsa_key(2048)
    for name, key in (("ec", ec), ("rsa", rsa), ("weak", certificates.rsa_key(1024))):
        (folder / f"{name}.pub").write_bytes(certificates.public_key(key))
    (folder / "two.pub").write_bytes(certificates.public_key(ec) + certificates.public_key(rsa))
    public = jwk.construct(certificates.public_key(ec), "ES256").to_dict()
    private = jwk.construct(certificates.private_key(ec), "ES256").to_dict()
    for name, keys in (
        ("jwks", [public]),
        ("private", [public, private]),
        ("no-keys", []),
        ("no-signatures", [public | {"use": "enc"}]),
    ):
        (folder / f"{name}.json").write_text(json.dumps({"keys": keys}))
    (folder / "secret-31").write_text(f"{SECRET:-<31}\n")
    (folder / "secret-32").write_text(f"{SECRET:-<32}\n")


def reported(file: Path, surroundings: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigError:
    shutil.copytree(surroundings, folder, dirs_exist_ok=True)
    shutil.copy(file, folder / "config.toml")
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError) as raised:
        load(Path("config.toml"), {})
    return raised.value


@pytest.mark.parametrize("file", FAULT_FILES, ids=lambda file: file.stem)
def test_a_bad_file_is_reported_with_its_exact_message(
    file: Path, surroundings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = reported(file, surroundings, tmp_path, monkeypatch)
    lines = file.read_text("utf-8", "replace").splitlines()
    expected = [line.removeprefix(MESSAGE) for line in lines if line.startswith(MESSAGE)]
    assert str(error).replace(f"{tmp_path}/", "FOLDER/").splitlines() == expected


@pytest.mark.parametrize("file", FAULT_FILES, ids=lambda file: file.stem)
def test_no_secret_stands_in_a_fault(
    file: Path, surroundings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = reported(file, surroundings, tmp_path, monkeypatch)
    assert SECRET not in f"{error} {error!r} {error.faults!r}"


def test_every_option_has_a_bad_file() -> None:
    messages = "\n".join(file.read_text("utf-8", "replace") for file in FAULT_FILES)
    places = [f"{MESSAGE}config.toml: {table}.{key}: " for table, key in known()]
    assert [place for place in places if place not in messages] == []


def test_everything_that_can_be_said_of_an_issuer_wrongly_has_a_bad_file() -> None:
    messages = "\n".join(file.read_text("utf-8", "replace") for file in FAULT_FILES)
    places = [f"{MESSAGE}config.toml: auth.jwt[0].{key}: " for key in JwtTable.model_fields]
    assert [place for place in places if place not in messages] == []


def test_an_empty_file_is_a_whole_configuration(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert config.listen.address == Address("0.0.0.0", 8443)
    assert config.listen.max_connections == 4096
    assert config.listen.max_header_bytes == 32768
    assert config.listen.header_timeout == 10.0
    assert config.listen.idle_timeout == 75.0
    assert config.listen.drain_timeout == 300.0
    assert config.listen.trusted_proxies == ()
    assert config.tls.mode == "self-signed"
    assert config.tls.certificate == tmp_path / "data/tls.crt"
    assert config.tls.private_key == tmp_path / "data/tls.key"
    assert config.tls.client_ca is None
    assert config.tls.client_auth == "none"
    assert config.upstream.url == UpstreamUrl("http", "127.0.0.1", 11434)
    assert config.upstream.url.authority == b"127.0.0.1:11434"
    assert config.upstream.connect_timeout == 5.0
    assert config.ops.address == Address("127.0.0.1", 9464)
    assert config.ops.token is None
    assert config.store.path == tmp_path / "data/ollama-auth-proxy.db"
    assert config.auth.anonymous == {("GET", "/"), ("HEAD", "/")}
    assert config.auth.api_keys is True
    assert config.auth.ssh_signatures is True
    assert config.auth.path_keys is False
    assert config.auth.failures_per_minute == 30
    assert config.auth.jwt == ()
    assert config.policy.cloud is False
    assert config.policy.max_guarded_body == 64 << 20
    assert config.log.format == "json"
    assert config.log.access is True
    assert config.warnings == ()


def test_a_configuration_cannot_be_changed(tmp_path: Path) -> None:
    config = read(tmp_path)
    with pytest.raises(ValidationError):
        config.log.access = False


def test_relative_paths_start_at_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / "etc", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    certificates.write_pair(folder, "tls", certificates.ec_key())
    (folder / "token").write_text("  s3cret\n")
    write(
        folder,
        '[tls]\nmode = "files"\ncertificate = "tls.crt"\nprivate_key = "tls.key"\n'
        '[ops]\ntoken_file = "token"\n[store]\nurl = "sqlite:///../keys.db"',
    )
    monkeypatch.chdir(elsewhere)
    config = load(Path("../etc/config.toml"), {})
    assert config.tls.certificate is not None
    assert config.tls.certificate.resolve() == folder / "tls.crt"
    assert config.ops.token == "s3cret"
    assert config.store.path.resolve() == tmp_path / "keys.db"


def test_four_slashes_name_an_absolute_store(tmp_path: Path) -> None:
    config = read(tmp_path, f'[store]\nurl = "sqlite:///{tmp_path}/sub/keys.db"')
    assert config.store.path == tmp_path / "sub/keys.db"


def test_the_token_is_not_in_the_repr_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret")
    config = read(tmp_path, '[ops]\ntoken_file = "token"')
    assert config.ops.token == "s3cret"
    assert "s3cret" not in repr(config)


def test_tls_off_has_no_certificate(tmp_path: Path) -> None:
    config = read(tmp_path, '[tls]\nmode = "off"\ncertificate = "missing"')
    assert (config.tls.certificate, config.tls.private_key) == (None, None)


def test_a_pair_that_fits_is_accepted_and_extra_text_and_chains_too(tmp_path: Path) -> None:
    key = certificates.rsa_key(2048)
    chain = (
        "Größe: egal\n".encode()
        + certificates.certificate(key)
        + certificates.certificate(certificates.ec_key())
    )
    (tmp_path / "chain.pem").write_bytes(chain)
    (tmp_path / "key.pem").write_bytes(certificates.private_key(key, traditional=True))
    config = read(tmp_path, '[tls]\nmode = "files"\ncertificate = "chain.pem"\nprivate_key = "key.pem"')
    assert config.tls.certificate == tmp_path / "chain.pem"


def test_a_key_that_openssl_encrypted_in_its_own_form_is_reported(tmp_path: Path) -> None:
    key = certificates.ec_key()
    certificates.write_pair(tmp_path, "tls", key)
    (tmp_path / "tls.key").write_bytes(certificates.private_key(key, SECRET.encode(), traditional=True))
    told = faults(tmp_path, '[tls]\nmode = "files"\ncertificate = "tls.crt"\nprivate_key = "tls.key"')
    assert told == [
        "config.toml: tls.private_key: tls.key is encrypted; "
        "decrypt it: openssl pkey -in tls.key -out NEW_FILE"
    ]


# The environment


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        '[listen]\naddress = "0.0.0.0:1"\nidle_timeout = "1s"\n[upstream]\nurl = "broken"',
        OLLAMA_PROXY_LISTEN__ADDRESS="[::1]:0",
        OLLAMA_PROXY_LISTEN__MAX_CONNECTIONS="12",
        OLLAMA_PROXY_LISTEN__MAX_HEADER_BYTES="64KiB",
        OLLAMA_PROXY_UPSTREAM__URL="https://ollama.internal",
        OLLAMA_PROXY_AUTH__API_KEYS="false",
        OLLAMA_PROXY_LOG__FORMAT="text",
        PATH="/bin",
    )
    assert config.listen.address == Address("::1", 0)
    assert config.listen.idle_timeout == 1.0
    assert config.listen.max_connections == 12
    assert config.listen.max_header_bytes == 65536
    assert config.upstream.url == UpstreamUrl("https", "ollama.internal", 443)
    assert config.auth.api_keys is False
    assert config.log.format == "text"


@pytest.mark.parametrize("text", ["10.0.0.0/8, ::1", '["10.0.0.0/8", "::1"]', ' [ "10.0.0.0/8","::1"]'])
def test_a_list_in_the_environment_is_json_or_has_commas(tmp_path: Path, text: str) -> None:
    config = read(tmp_path, OLLAMA_PROXY_LISTEN__TRUSTED_PROXIES=text)
    assert config.listen.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1"))


@pytest.mark.parametrize("text", ["", "[]", " "])
def test_a_list_in_the_environment_can_be_empty(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, OLLAMA_PROXY_AUTH__ANONYMOUS=text).auth.anonymous == frozenset()


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("LISTEN__ADDRESS", "8443", '"8443" has no port; write HOST:PORT'),
        ("LISTEN__MAX_CONNECTIONS", "many", "this is text, not a whole number; write a whole number from 1"),
        ("LISTEN__MAX_CONNECTIONS", "-1", "this is text, not a whole number; write a whole number from 1"),
        ("LISTEN__MAX_CONNECTIONS", "9999999999", "9999999999 is out of range; write a whole number from 1"),
        ("LOG__ACCESS", "1", "this is text, not a flag; write true or false"),
        ("AUTH__ANONYMOUS", '["GET /"', "this is not valid JSON; write a JSON list, or texts with commas"),
        ("AUTH__ANONYMOUS", "[" * 100_000, "this is not valid JSON; write a JSON list, or texts with commas"),
        ("LISTEN_ADDRESS", "0.0.0.0:1", "unknown variable; did you mean OLLAMA_PROXY_LISTEN__ADDRESS?"),
        ("listen__address", "0.0.0.0:1", "unknown variable; did you mean OLLAMA_PROXY_LISTEN__ADDRESS?"),
        ("PORT", "8443", "unknown variable; variables are named OLLAMA_PROXY_TABLE__KEY"),
        ("QUEUE__SLOTS", "4", "this is not in this version; write 0 or remove it"),
        ("TLS__MODE", "acme", 'mode "acme" is not in this version; write "files"'),
        ("AUTH__JWT", SECRET, "this is not valid JSON; write a JSON list with an object for each issuer"),
        (
            "AUTH__JWT",
            "[" * 100_000,
            "this is not valid JSON; write a JSON list with an object for each issuer",
        ),
        ("AUTH__JWT", '{"issuer": "x"}', "this is a table, not a list; write a JSON list with an object"),
        ("AUTH__FAILURES_PER_MINUTE", "1.5", "this is text, not a whole number; write a whole number from 0"),
        ("OPS__TOKEN_FILE", SECRET, "the file cannot be read: no such file or directory; name a file"),
        (
            "STORE__URL",
            f"postgresql://me:{SECRET}@db/x",
            "PostgreSQL is not in this version; write a sqlite URL",
        ),
    ],
)
def test_a_fault_of_the_environment_names_the_variable(
    tmp_path: Path, name: str, text: str, told: str
) -> None:
    (line,) = faults(tmp_path, **{f"OLLAMA_PROXY_{name}": text})
    assert line.startswith(f"OLLAMA_PROXY_{name}: {told}")
    assert SECRET not in line


def test_variables_that_kubernetes_sets_for_a_service_of_our_name_are_not_ours(tmp_path: Path) -> None:
    links = {
        "OLLAMA_PROXY_SERVICE_HOST": "10.0.0.1",
        "OLLAMA_PROXY_SERVICE_PORT": "8443",
        "OLLAMA_PROXY_SERVICE_PORT_HTTPS": "8443",
        "OLLAMA_PROXY_PORT": "tcp://10.0.0.1:8443",
        "OLLAMA_PROXY_PORT_8443_TCP": "tcp://10.0.0.1:8443",
        "OLLAMA_PROXY_PORT_8443_TCP_PROTO": "tcp",
        "OLLAMA_PROXY_PORT_8443_TCP_PORT": "8443",
        "OLLAMA_PROXY_PORT_8443_TCP_ADDR": "10.0.0.1",
        "OLLAMA_PROXY_OPS_SERVICE_HOST": "10.0.0.2",
    }
    assert read(tmp_path, **links) == read(tmp_path)


def test_values_of_later_options_that_ask_for_what_happens_anyway_are_accepted(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        '[store]\ncounters = "memory"\n'
        "[limits]\nrequests_per_minute = 0\ntokens_per_day = 0\nconcurrent = 0\n"
        "[queue]\nslots = 0",
    )
    variables = {
        "OLLAMA_PROXY_STORE__COUNTERS": "memory",
        "OLLAMA_PROXY_QUEUE__SLOTS": "0",
    }
    assert config == read(tmp_path) == read(tmp_path, **variables)


@pytest.mark.parametrize(("table", "key"), sorted(known()))
def test_every_option_has_a_variable(tmp_path: Path, table: str, key: str) -> None:
    (line,) = faults(tmp_path, **{variable(table, key): "\0"})
    assert line.startswith(f"OLLAMA_PROXY_{table.upper()}__{key.upper()}: ")


# Issuers of JWTs


def test_an_issuer_is_read_with_its_defaults(tmp_path: Path) -> None:
    (issuer,) = read(tmp_path, ISSUER).auth.jwt
    assert issuer == Issuer(
        "https://id.example.com",
        audiences=frozenset({"ollama"}),
        algorithms=frozenset({"RS256"}),
        discovery=True,
    )


def test_everything_about_issuers_is_read(tmp_path: Path) -> None:
    keys_for_jwts(tmp_path)
    (tmp_path / "ca.pem").write_bytes(certificates.Authority().certificate)
    by_url, by_set, by_key, by_secret = read(
        tmp_path,
        """
        [[auth.jwt]]
        issuer = "https://ID.example.com/realm/"
        audience = ["ollama", "api://ollama"]
        jwks_url = "https://id.example.com/keys?p=1"
        ca_file = "ca.pem"
        scope_claim = "realm_access.roles"
        models_claim = "models"
        cloud_claim = "cloud"
        limits_claim = "limits"
        name_claim = "email"
        default_scopes = ["read", "inference"]
        leeway = "0s"
        [[auth.jwt]]
        issuer = "http://127.0.0.1:8080"
        audience = "ollama"
        algorithms = ["ES256", "RS256"]
        jwks_file = "jwks.json"
        [[auth.jwt]]
        issuer = "http://localhost/keys"
        audience = "ollama"
        public_key_file = "rsa.pub"
        algorithms = ["RS512"]
        [[auth.jwt]]
        issuer = "https://secret.example.com"
        audience = "ollama"
        secret_file = "secret-32"
        algorithms = ["HS256"]
        """,
    ).auth.jwt
    assert by_url == Issuer(
        "https://ID.example.com/realm/",
        audiences=frozenset({"ollama", "api://ollama"}),
        algorithms=frozenset({"RS256"}),
        jwks_url="https://id.example.com/keys?p=1",
        ca_file=tmp_path / "ca.pem",
        scope_claim="realm_access.roles",
        models_claim="models",
        cloud_claim="cloud",
        limits_claim="limits",
        name_claim="email",
        default_scopes=frozenset({"read", "inference"}),
        leeway=0.0,
    )
    assert (by_set.jwks_file, by_set.algorithms) == (tmp_path / "jwks.json", frozenset({"ES256", "RS256"}))
    assert (by_key.public_key_file, by_key.algorithms) == (tmp_path / "rsa.pub", frozenset({"RS512"}))
    assert (by_secret.secret_file, by_secret.algorithms) == (tmp_path / "secret-32", frozenset({"HS256"}))
    assert [one.remote for one in (by_url, by_set, by_key, by_secret)] == [True, False, False, False]


def test_issuers_in_the_environment_are_a_json_list(tmp_path: Path) -> None:
    table = {"issuer": "https://id.example.com", "audience": ["ollama"], "discovery": True, "leeway": "5s"}
    text = json.dumps([table, table | {"issuer": "https://other.example.com"}])
    first, second = read(tmp_path, ISSUER + ISSUER, OLLAMA_PROXY_AUTH__JWT=text).auth.jwt
    assert (first.leeway, second.issuer) == (5.0, "https://other.example.com")
    assert read(tmp_path, ISSUER, OLLAMA_PROXY_AUTH__JWT=" ").auth.jwt == ()


def test_a_fault_in_an_issuer_of_the_environment_names_the_variable_and_the_part(tmp_path: Path) -> None:
    text = json.dumps([{"issuer": "https://id.example.com", "audience": None, "discovery": True}, [1]])
    expected = [
        "OLLAMA_PROXY_AUTH__JWT[0].audience: this is null, not a list; "
        "write text, or a list of texts in brackets",
        "OLLAMA_PROXY_AUTH__JWT[1]: this is a list, not a table; "
        "write a JSON list with an object for each issuer",
    ]
    assert faults(tmp_path, OLLAMA_PROXY_AUTH__JWT=text) == expected
    with pytest.raises(ConfigError) as raised:
        load(tmp_path / "no.toml", {"OLLAMA_PROXY_AUTH__JWT": text})
    assert str(raised.value).splitlines()[1:] == expected


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["", "ec.pub", "https://id.example.com", "RS256"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*JwtTable.model_fields]), inner, max_size=3)
    ),
)


@given(VALUES | st.lists(st.dictionaries(st.sampled_from([*JwtTable.model_fields, "a\nb"]), VALUES)))
def test_any_json_is_issuers_or_stated_faults(surroundings: Path, value: object) -> None:
    found: ConfigError | None = None
    try:
        issuers = load(surroundings / "nothing.toml", {"OLLAMA_PROXY_AUTH__JWT": json.dumps(value)}).auth.jwt
    except ConfigError as error:  # nothing else may be raised
        found, issuers = error, ()
    assert all(issuer.issuer and issuer.audiences and issuer.algorithms for issuer in issuers)
    if found is not None:
        assert all(fault.place.startswith("OLLAMA_PROXY_AUTH__JWT") for fault in found.faults)
        assert len(str(found).splitlines()) == len(found.faults) > 0


@pytest.mark.parametrize(
    "text",
    [
        f'{ISSUER}secret = "{SECRET}"',
        f'{ISSUER}secret_file = "{SECRET}"\nalgorithms = ["HS256"]',
        f'{ISSUER}jwks_url = "https://{SECRET}@id.example.com/"',
        f'{ISSUER}ca_file = "{SECRET}"',
        f'{ISSUER}audience = "{SECRET}"',
    ],
)
def test_a_secret_in_a_wrong_place_is_not_repeated(tmp_path: Path, text: str) -> None:
    assert SECRET not in "\n".join(faults(tmp_path, text))


def test_ordinary_configurations_load_neither_cryptography_nor_python_jose(tmp_path: Path) -> None:
    """They would cost every start 9 MB, for what only files with keys need."""
    (tmp_path / "ca.pem").write_bytes(certificates.Authority().certificate)
    file = write(tmp_path, f'[tls]\nclient_auth = "optional"\nclient_ca = "ca.pem"\n{ISSUER}')
    program = (
        "import sys; from pathlib import Path; from proxy.config import load\n"
        "load(Path(sys.argv[1]), {})\n"
        "print([name for name in sys.modules if name.startswith(('cryptography', 'jose'))])"
    )
    command = [sys.executable, "-c", program, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[]\n"


# Which file


def test_the_file_is_the_one_named_else_that_of_the_variable_else_the_one_in_etc(tmp_path: Path) -> None:
    named, by_variable = tmp_path / "named.toml", tmp_path / "variable.toml"
    named.write_text('[log]\nformat = "text"')
    by_variable.write_text("[log]\naccess = false")
    environ = {"OLLAMA_PROXY_CONFIG": str(by_variable)}
    assert load(named, environ).log.format == "text"
    assert load(None, environ).log.access is False
    for nothing in ({}, {"OLLAMA_PROXY_CONFIG": ""}):
        with pytest.raises(ConfigError) as raised:
            load(None, nothing)
        assert raised.value.faults[0].place == "/etc/ollama-auth-proxy/config.toml"


def test_a_missing_file_is_a_fault_and_so_is_what_the_environment_says_wrongly(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load(
            tmp_path / "no.toml",
            {"OLLAMA_PROXY_LISTEN__ADDRESS": "x", "OLLAMA_PROXY_Y": "", "OLLAMA_PROXY_Z": ""},
        )
    first, *rest = raised.value.faults
    right = "name another with --config or OLLAMA_PROXY_CONFIG"
    assert first == Fault(
        str(tmp_path / "no.toml"), "the file cannot be read: no such file or directory", right
    )
    assert [fault.place for fault in rest] == [
        "OLLAMA_PROXY_Y",
        "OLLAMA_PROXY_Z",
        "OLLAMA_PROXY_LISTEN__ADDRESS",
    ]


def test_a_folder_is_not_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the file cannot be read: is a directory"):
        load(tmp_path, {})


def test_names_from_outside_cannot_break_the_line(tmp_path: Path) -> None:
    (line,) = faults(tmp_path, '[log]\n"a\\nb\\u001b[2J" = 1')
    assert line == "config.toml: log.a?b?[2J: unknown key; [log] has: format, level, access"


UNPRIVILEGED = """
import os, sys
from pathlib import Path
from proxy.config import ConfigError, load
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    load(Path(sys.argv[1]), {})
except ConfigError as error:
    print(error)
"""


@pytest.fixture
def seen_by_all() -> Iterator[Path]:
    """A folder that every user may look into; `tmp_path` lies in one that is closed to others."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def test_files_that_another_user_owns_are_faults_and_no_traceback(seen_by_all: Path) -> None:
    """Run as a user without rights, because root may read and write everything."""
    closed = seen_by_all / "closed"
    closed.mkdir()
    (seen_by_all / "token").write_text("s3cret")
    (seen_by_all / "token").chmod(0)
    text = '[ops]\ntoken_file = "token"\n[store]\nurl = "sqlite:///closed/sub/keys.db"'
    text += '\n[tls]\ncertificate = "closed/tls.crt"\nprivate_key = "closed/tls.key"'
    file = write(seen_by_all, text)
    closed.chmod(0)
    try:
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, file],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        closed.chmod(0o700)
    assert done.stderr == ""
    beginnings = [line.replace(f"{seen_by_all}/", "").partition(";")[0] for line in done.stdout.splitlines()]
    assert beginnings == [
        "config.toml: ops.token_file: the file cannot be read: permission denied",
        "config.toml: tls.certificate: the folder closed cannot be written",
        "config.toml: tls.private_key: the folder closed cannot be written",
        "config.toml: store.url: the folder closed cannot be written",
    ]


@pytest.mark.parametrize("name", ["x", "one/x", "one/two/x", "a-file/x"])
def test_a_place_is_a_fault_where_the_start_would_fail_and_nowhere_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "a-file").touch()
    pair = (tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
    tls = f'[tls]\ncertificate = "{name}.crt"\nprivate_key = "{name}.key"'
    text = f'[store]\nurl = "sqlite:///{name}.db"\n{tls}'
    try:
        read(tmp_path, text)
        places = set()
    except ConfigError as error:
        places = {fault.place.partition(": ")[2] for fault in error.faults}
    failed = set()
    try:
        prepare(tmp_path / f"{name}.db")
    except StoreError:
        failed.add("store.url")
    try:
        ensure_self_signed(*pair, datetime.now(UTC))
    except OSError:
        failed |= {"tls.certificate", "tls.private_key"}
    assert places == failed


# Warnings


@pytest.mark.parametrize(
    ("text", "beginning"),
    [
        (
            '[tls]\nmode = "off"',
            "listen.address: keys and prompts cross the network in clear text to 0.0.0.0:8443",
        ),
        (
            '[listen]\ntrusted_proxies = ["::/0"]',
            "listen.trusted_proxies: every client may claim any address",
        ),
        ('[ops]\naddress = "[::]:9464"', "ops.address: whoever reaches [::]:9464 sees the metrics"),
        ('[upstream]\nurl = "http://gpu:11434"', "upstream.url: prompts and answers cross the network"),
        ("[auth]\napi_keys = false\nssh_signatures = false", "auth.api_keys: no credential is accepted"),
        ("[auth]\npath_keys = true", "auth.path_keys: keys in URLs end up in the logs"),
    ],
)
def test_a_danger_is_warned_about(tmp_path: Path, text: str, beginning: str) -> None:
    (warning,) = read(tmp_path, text).warnings
    assert warning.startswith(beginning)


@pytest.mark.parametrize(
    "text",
    [
        '[listen]\naddress = "127.0.0.1:8080"\n[tls]\nmode = "off"',
        '[listen]\naddress = "localhost:8080"\n[tls]\nmode = "off"',
        '[ops]\naddress = "0.0.0.0:9464"\ntoken_file = "token"',
        '[upstream]\nurl = "https://gpu:11434"',
        '[upstream]\nurl = "http://[::1]:11434"',
        "[policy]\ncloud = true",
        "[auth]\nssh_signatures = false",
        "[auth]\napi_keys = false",
        f"[auth]\napi_keys = false\nssh_signatures = false\n{ISSUER}",
        "[auth]\napi_keys = false\nssh_signatures = false\n"
        '[tls]\nclient_auth = "optional"\nclient_ca = "ca.pem"',
    ],
)
def test_what_is_no_danger_is_not_warned_about(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text("s3cret")
    (tmp_path / "ca.pem").write_bytes(certificates.Authority().certificate)
    assert read(tmp_path, text).warnings == ()


# Addresses that exclude each other


@pytest.mark.parametrize(
    ("listen", "ops"),
    [
        ("127.0.0.1:7000", "127.0.0.1:7000"),
        ("127.0.0.1:7000", "localhost:7000"),
        ("0.0.0.0:7000", "127.0.0.1:7000"),
        ("[::1]:7000", "[::]:7000"),
        ("[::1]:7000", "[0::1]:7000"),
    ],
)
def test_two_listeners_on_one_address_are_a_fault(tmp_path: Path, listen: str, ops: str) -> None:
    (line,) = faults(tmp_path, f'[listen]\naddress = "{listen}"\n[ops]\naddress = "{ops}"')
    assert line.startswith("config.toml: ops.address: ")


@pytest.mark.parametrize(
    ("listen", "ops"),
    [
        ("127.0.0.1:7000", "127.0.0.1:7001"),
        ("127.0.0.1:7000", "127.0.0.2:7000"),
        ("0.0.0.0:7000", "[::1]:7000"),
        ("127.0.0.1:0", "127.0.0.1:0"),
    ],
)
def test_two_listeners_on_two_addresses_are_none(tmp_path: Path, listen: str, ops: str) -> None:
    config = read(tmp_path, f'[listen]\naddress = "{listen}"\n[ops]\naddress = "{ops}"')
    assert (str(config.listen.address), str(config.ops.address)) == (listen, ops)
