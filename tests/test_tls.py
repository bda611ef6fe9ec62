"""TLS: what the context speaks, whose certificates it takes from clients, and the self-signed pair of the
first start, over real connections."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from proxy.tls import (
    ForeignFileError,
    certificate_expiry,
    check_client_ca,
    check_pair,
    check_self_signed,
    ensure_self_signed,
    server_context,
)

from . import certificates

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
KEY = certificates.ec_key()


class Pair:
    """The two files of a folder that does not exist yet."""

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "data" / "tls.crt"
        self.private_key = folder / "data" / "tls.key"

    def ensure(self, now: datetime = NOW) -> bool:
        return ensure_self_signed(self.certificate, self.private_key, now)

    def parsed(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate.read_bytes())

    def contents(self) -> tuple[bytes, bytes]:
        return self.certificate.read_bytes(), self.private_key.read_bytes()


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


@contextmanager
def server(context: ssl.SSLContext) -> Iterator[int]:
    """A port where every connection gets a handshake and is sent what ALPN chose."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(5)
                    try:
                        with context.wrap_socket(connection, server_side=True) as tls:
                            tls.sendall(repr(tls.selected_alpn_protocol()).encode())
                    except OSError:
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def connect(port: int, context: ssl.SSLContext, name: str) -> tuple[str | None, bytes]:
    """The version spoken and what the server sent."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        version = tls.version()
        return version, tls.recv(100)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
@pytest.mark.parametrize("flags", [0, ssl.VERIFY_X509_STRICT], ids=["default", "strict"])
def test_a_client_that_trusts_the_self_signed_certificate_connects(pair: Pair, name: str, flags: int) -> None:
    pair.ensure()
    client = ssl.create_default_context(cafile=pair.certificate)
    client.verify_flags |= ssl.VerifyFlags(flags)
    with server(server_context(pair.certificate, pair.private_key)) as port:
        assert connect(port, client, name)[0] == "TLSv1.3"


def test_a_client_that_expects_another_name_refuses_it(pair: Pair) -> None:
    pair.ensure()
    client = ssl.create_default_context(cafile=pair.certificate)
    with (
        server(server_context(pair.certificate, pair.private_key)) as port,
        pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"),
    ):
        connect(port, client, "elsewhere.example")


def old_client(pair: Pair, version: ssl.TLSVersion) -> ssl.SSLContext:
    client = ssl.create_default_context(cafile=pair.certificate)
    client.set_ciphers("ALL:@SECLEVEL=0")  # else OpenSSL does not even offer the old versions
    client.minimum_version = client.maximum_version = version
    return client


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_a_version_before_tls_1_2_is_refused_by_the_server(pair: Pair, version: ssl.TLSVersion) -> None:
    pair.ensure()
    with (
        server(server_context(pair.certificate, pair.private_key)) as port,
        pytest.raises(ssl.SSLError, match="TLSV1_ALERT_PROTOCOL_VERSION"),
    ):
        connect(port, old_client(pair, version), "localhost")


def test_tls_1_2_is_spoken(pair: Pair) -> None:
    pair.ensure()
    with server(server_context(pair.certificate, pair.private_key)) as port:
        assert connect(port, old_client(pair, ssl.TLSVersion.TLSv1_2), "localhost")[0] == "TLSv1.2"


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["h2", "http/1.1"], b"'http/1.1'"), (["http/1.1"], b"'http/1.1'"), (["h2"], b"None"), ([], b"None")],
)
def test_http_1_1_is_the_only_protocol(pair: Pair, offered: list[str], chosen: bytes) -> None:
    pair.ensure()
    client = ssl.create_default_context(cafile=pair.certificate)
    if offered:
        client.set_alpn_protocols(offered)
    with server(server_context(pair.certificate, pair.private_key)) as port:
        assert connect(port, client, "localhost")[1] == chosen


def test_clients_cannot_renegotiate_or_compress(pair: Pair) -> None:
    pair.ensure()
    options = server_context(pair.certificate, pair.private_key).options
    assert options & ssl.OP_NO_RENEGOTIATION
    assert options & ssl.OP_NO_COMPRESSION


def test_serving_does_not_load_cryptography(pair: Pair) -> None:
    """It would cost every process 9 MB for what happens once a year."""
    pair.ensure()
    program = (
        "import sys; from datetime import UTC, datetime; from pathlib import Path\n"
        "from proxy.tls import certificate_expiry, check_client_ca, check_pair\n"
        "from proxy.tls import ensure_self_signed, server_context\n"
        "files = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "print(ensure_self_signed(*files, datetime.now(UTC)), check_pair(*files))\n"
        "server_context(*files, files[0], True), check_client_ca(files[0]), certificate_expiry(files[0])\n"
        "print([name for name in sys.modules if name.startswith('cryptography')])"
    )
    command = [sys.executable, "-c", program, str(pair.certificate), str(pair.private_key)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "False []\n[]\n"


def test_an_encrypted_key_is_refused_and_not_asked_for_on_the_terminal(tmp_path: Path) -> None:
    key = certificates.ec_key()
    certificate, private_key = certificates.write_pair(tmp_path, "tls", key)
    private_key.write_bytes(certificates.private_key(key, b"password"))
    with pytest.raises(ssl.SSLError):
        server_context(certificate, private_key)
    (problem,) = check_pair(certificate, private_key)
    assert (problem.of, problem.wrong) == ("private_key", f"{private_key} is encrypted")


# Certificates of clients


class Clients:
    """A folder with a server's pair and the certificate of an authority whose clients it lets in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = certificates.Authority()
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self.authority.certificate)
        self.pair = certificates.write_pair(folder, "tls", KEY)

    def context(self, required: bool) -> ssl.SSLContext:
        return server_context(*self.pair, client_ca=self.ca, required=required)

    def show(self, *certificate: bytes, key: certificates.Key = KEY) -> tuple[Path, Path]:
        """The files of a client who shows these certificates, its own first."""
        files = self.folder / "client.crt", self.folder / "client.key"
        files[0].write_bytes(b"".join(certificate))
        files[1].write_bytes(certificates.private_key(key))
        return files


@pytest.fixture
def clients(tmp_path: Path) -> Clients:
    return Clients(tmp_path)


class Seen(NamedTuple):
    """What a server knows of a connection that stands."""

    name: str | None
    resumed: bool


def visit(
    context: ssl.SSLContext,
    shown: tuple[Path, Path] | None,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    times: int = 1,
) -> list[Seen]:
    """Connections one after the other, each with the session of the one before; those that stood."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.minimum_version = client.maximum_version = version
    if shown:
        client.load_cert_chain(*shown)
    seen: list[Seen] = []

    def serve(listener: socket.socket) -> None:
        for _ in range(times):
            connection, _ = listener.accept()
            connection.settimeout(5)
            with suppress(ssl.SSLError), context.wrap_socket(connection, server_side=True) as tls:
                shown = repr(tls.getpeercert())
                name = re.search(r"'commonName', '(\w+)'", shown)  # the subject stands before the issuer
                seen.append(Seen(name[1] if name else None, bool(tls.session_reused)))
                tls.sendall(b"x")
                tls.unwrap()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=[listener])
        thread.start()
        session = None
        for _ in range(times):
            with (
                suppress(ssl.SSLError, ConnectionError),
                socket.create_connection(listener.getsockname(), timeout=5) as plain,
                client.wrap_socket(plain, session=session) as tls,
            ):
                if tls.recv(1):
                    session = tls.session
                    tls.unwrap()
        thread.join()
    return seen


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("required", [False, True], ids=["optional", "required"])
def test_a_certificate_of_the_authority_is_told_by_its_name(
    clients: Clients, required: bool, version: ssl.TLSVersion
) -> None:
    files = clients.authority.write_client(clients.folder, "laptop")
    assert visit(clients.context(required), files, version) == [Seen("laptop", False)]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_without_a_certificate_only_those_get_in_who_may(clients: Clients, version: ssl.TLSVersion) -> None:
    assert visit(clients.context(required=False), None, version) == [Seen(None, False)]
    assert visit(clients.context(required=True), None, version) == []


def test_a_server_without_an_authority_asks_for_no_certificate(clients: Clients) -> None:
    files = clients.authority.write_client(clients.folder, "laptop")
    assert visit(server_context(*clients.pair), files) == [Seen(None, False)]


def expired(clients: Clients) -> list[bytes]:
    return [clients.authority.issue("laptop", KEY, ends=NOW - timedelta(seconds=1))]


def not_begun(clients: Clients) -> list[bytes]:
    return [clients.authority.issue("laptop", KEY, ends=NOW + 91 * DAY)]


def of_a_stranger_of_the_same_name(clients: Clients) -> list[bytes]:
    return [certificates.Authority().issue("laptop", KEY)]


def signed_by_itself(clients: Clients) -> list[bytes]:
    return [certificates.certificate(KEY, "laptop")]


def with_its_own_authority_beside_it(clients: Clients) -> list[bytes]:
    authority = certificates.Authority("Mine")
    return [authority.issue("laptop", KEY), authority.certificate]


def for_a_server(clients: Clients) -> list[bytes]:
    return [clients.authority.issue("laptop", KEY, purpose=ExtendedKeyUsageOID.SERVER_AUTH)]


def signed_by_a_client(clients: Clients) -> list[bytes]:
    signer = certificates.Authority("laptop")
    signer.certificate = clients.authority.issue("laptop", signer.key)
    return [signer.issue("laptop", KEY), signer.certificate]


@pytest.mark.parametrize("required", [False, True], ids=["optional", "required"])
@pytest.mark.parametrize(
    "bad",
    [
        expired,
        not_begun,
        of_a_stranger_of_the_same_name,
        signed_by_itself,
        with_its_own_authority_beside_it,
        for_a_server,
        signed_by_a_client,
    ],
    ids=lambda bad: bad.__name__,
)
def test_a_certificate_that_does_not_hold_ends_the_handshake(
    clients: Clients, bad: Callable[[Clients], list[bytes]], required: bool
) -> None:
    assert visit(clients.context(required), clients.show(*bad(clients))) == []


def test_authorities_of_the_system_are_not_trusted(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    other = certificates.Authority("Everybody knows me")
    system = clients.folder / "system.pem"
    system.write_bytes(other.certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(system))
    assert visit(clients.context(required=False), clients.show(other.issue("laptop", KEY))) == []


def test_each_of_several_authorities_is_trusted(clients: Clients) -> None:
    other = certificates.Authority("Others")
    clients.ca.write_bytes(clients.authority.certificate + other.certificate)
    context = clients.context(required=True)
    for authority in (clients.authority, other):
        assert visit(context, clients.show(authority.issue("laptop", KEY))) == [Seen("laptop", False)]


def test_an_authority_in_the_middle_is_trusted_alone_and_not_its_root(clients: Clients) -> None:
    middle = certificates.Authority("Laptops", parent=clients.authority)
    clients.ca.write_bytes(middle.certificate)
    context = clients.context(required=True)
    assert visit(context, clients.show(middle.issue("laptop", KEY))) == [Seen("laptop", False)]
    assert visit(context, clients.show(clients.authority.issue("desk", KEY))) == []


def test_below_a_root_the_client_shows_what_is_between(clients: Clients) -> None:
    middle = certificates.Authority("Laptops", parent=clients.authority)
    context = clients.context(required=True)
    chain = (middle.issue("laptop", KEY), middle.certificate)
    assert visit(context, clients.show(*chain)) == [Seen("laptop", False)]
    assert visit(context, clients.show(chain[0])) == []


def test_with_tls_1_3_every_connection_proves_the_certificate_anew(clients: Clients) -> None:
    """A session that is taken up again would not be looked at, whether its certificate has ended since."""
    files = clients.authority.write_client(clients.folder, "laptop")
    assert visit(clients.context(required=True), files, times=3) == [Seen("laptop", False)] * 3
    assert visit(server_context(*clients.pair), None, times=3)[1:] == [Seen(None, True)] * 2


def test_a_session_of_tls_1_2_that_is_taken_up_again_tells_the_same_certificate(clients: Clients) -> None:
    files = clients.authority.write_client(clients.folder, "laptop")
    first, *later = visit(clients.context(required=True), files, ssl.TLSVersion.TLSv1_2, times=3)
    assert first == Seen("laptop", False)
    assert later == [Seen("laptop", True)] * 2


def test_a_session_of_one_context_is_none_of_another(clients: Clients) -> None:
    """After a reload, whose authority may be another, nobody gets in by what the old one gave out."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.load_cert_chain(*clients.authority.write_client(clients.folder, "laptop"))
    with (
        server(clients.context(required=True)) as port,
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        client.wrap_socket(plain) as tls,
    ):
        session = tls.session
    clients.ca.write_bytes(certificates.Authority("Others").certificate)
    with (
        server(clients.context(required=True)) as port,
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        pytest.raises(ssl.SSLError, match="UNKNOWN_CA"),
    ):
        client.wrap_socket(plain, session=session)


def test_a_file_of_authorities_has_no_problem(clients: Clients) -> None:
    middle = certificates.Authority("Laptops", parent=clients.authority)
    clients.ca.write_bytes(b"words\n" + clients.authority.certificate + middle.certificate)
    assert check_client_ca(clients.ca) == []


def test_a_list_of_revoked_certificates_is_a_problem_because_nobody_would_look_at_it(
    clients: Clients,
) -> None:
    builder = x509.CertificateRevocationListBuilder().issuer_name(clients.authority.name)
    revoked = builder.last_update(NOW).next_update(NOW + DAY).sign(clients.authority.key, hashes.SHA256())
    clients.ca.write_bytes(clients.authority.certificate + revoked.public_bytes(serialization.Encoding.PEM))
    (problem,) = check_client_ca(clients.ca)
    assert problem.of == "client_ca"
    assert problem.wrong == f"{clients.ca} holds a list of revoked certificates, which is not looked at"


# The self-signed pair


def test_the_pair_is_made_once(pair: Pair) -> None:
    assert pair.ensure() is True
    made = pair.contents()
    assert pair.ensure() is False
    assert pair.contents() == made
    assert sorted(os.listdir(pair.certificate.parent)) == ["tls.crt", "tls.key"]


def test_the_key_is_for_its_owner_alone_whatever_the_umask(pair: Pair) -> None:
    before = os.umask(0)
    try:
        pair.ensure()
    finally:
        os.umask(before)
    assert stat.S_IMODE(pair.private_key.stat().st_mode) == 0o600
    assert stat.S_IMODE(pair.private_key.parent.stat().st_mode) == 0o700


def test_the_certificate_says_what_it_is_for(pair: Pair) -> None:
    pair.ensure()
    certificate = pair.parsed()
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    extensions = certificate.extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert certificate.not_valid_before_utc == NOW - timedelta(hours=1)
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == 397 * DAY


def test_the_certificate_names_this_machine(pair: Pair) -> None:
    pair.ensure()
    names = pair.parsed().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    hosts = names.get_values_for_type(x509.DNSName)
    addresses = names.get_values_for_type(x509.IPAddress)
    assert hosts[0] == "localhost"
    assert socket.gethostname() in hosts
    assert addresses[:2] == [ip_address("127.0.0.1"), ip_address("::1")]
    own = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    assert {ip_address(text) for text in own} - set(addresses) == set()
    assert len(addresses) == len(set(addresses))


@pytest.mark.parametrize(
    ("later", "made"), [(300 * DAY, False), (366 * DAY, False), (368 * DAY, True), (500 * DAY, True)]
)
def test_the_pair_is_made_anew_in_its_last_30_days(pair: Pair, later: timedelta, made: bool) -> None:
    pair.ensure()
    before = pair.contents()
    assert pair.ensure(NOW + later) is made
    assert (pair.contents() != before) is made
    assert check_pair(pair.certificate, pair.private_key) == []


def key_missing(pair: Pair) -> None:
    pair.private_key.unlink()


def key_garbage(pair: Pair) -> None:
    pair.private_key.write_bytes(b"garbage")


@pytest.mark.parametrize("harm", [key_missing, key_garbage])
def test_the_pair_is_made_anew_where_no_key_stands_beside_our_certificate(
    pair: Pair, harm: Callable[[Pair], None]
) -> None:
    pair.ensure()
    harm(pair)
    assert pair.ensure() is True
    assert check_pair(pair.certificate, pair.private_key) == []
    assert stat.S_IMODE(pair.private_key.stat().st_mode) == 0o600


@pytest.mark.parametrize("ends", [NOW + 90 * DAY, NOW + DAY, NOW - DAY])
def test_the_certificate_of_another_is_never_overwritten(pair: Pair, ends: datetime) -> None:
    key = certificates.ec_key()
    pair.certificate.parent.mkdir()
    pair.certificate.write_bytes(certificates.certificate(key, ends=ends))
    pair.private_key.write_bytes(certificates.private_key(key))
    before = pair.contents()
    with pytest.raises(ForeignFileError, match='was not made by this proxy; write mode = "files"'):
        pair.ensure()
    pair.private_key.unlink()
    with pytest.raises(ForeignFileError, match="was not made by this proxy"):
        pair.ensure()
    assert pair.certificate.read_bytes() == before[0]
    assert not pair.private_key.exists()


OTHER_KEYS = {
    "of the same kind": certificates.private_key(certificates.ec_key()),
    "of another kind": certificates.private_key(certificates.rsa_key(2048)),
    "encrypted": certificates.private_key(certificates.ec_key(), b"password"),
    "in DER": certificates.ec_key().private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ),
}


@pytest.mark.parametrize("later", [timedelta(0), 390 * DAY, 500 * DAY])
@pytest.mark.parametrize("key", OTHER_KEYS.values(), ids=OTHER_KEYS)
def test_the_key_of_another_beside_our_certificate_is_never_overwritten(
    pair: Pair, key: bytes, later: timedelta
) -> None:
    pair.ensure()
    pair.private_key.write_bytes(key)
    before = pair.contents()
    (problem,) = check_self_signed(pair.certificate, pair.private_key)
    assert (problem.of, problem.wrong) == (
        "private_key",
        f"{pair.private_key} is not the key of {pair.certificate}",
    )
    with pytest.raises(ForeignFileError, match=r'is not the key of .*; write mode = "files"'):
        pair.ensure(NOW + later)
    assert pair.contents() == before
    assert sorted(os.listdir(pair.certificate.parent)) == ["tls.crt", "tls.key"]


def test_one_file_for_both_is_a_problem(tmp_path: Path) -> None:
    (problem,) = check_self_signed(tmp_path / "tls.pem", tmp_path / "tls.pem")
    assert problem.wrong == f"{tmp_path}/tls.pem is the file of the certificate too"


KILLED = """
import os, signal, sys
from datetime import datetime
from pathlib import Path
from proxy.tls import ensure_self_signed
renames, last = 0, int(sys.argv[4])
def kill(event, arguments):
    global renames
    if event == "os.rename":
        renames += 1
        if renames > last:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill)
ensure_self_signed(Path(sys.argv[1]), Path(sys.argv[2]), datetime.fromisoformat(sys.argv[3]))
"""


def kill_while_it_is_made(pair: Pair, now: datetime, renames: int) -> None:
    """Ends a process without warning after it has put that many of the two files in their places."""
    files = [str(pair.certificate), str(pair.private_key)]
    command = [sys.executable, "-c", KILLED, *files, now.isoformat(), str(renames)]
    assert subprocess.run(command, timeout=30, check=False).returncode == -signal.SIGKILL


@pytest.mark.parametrize("renames", [0, 1])
@pytest.mark.parametrize("there", [False, True], ids=["first start", "renewal"])
def test_a_process_that_is_killed_while_it_makes_the_pair_stops_no_later_one(
    pair: Pair, there: bool, renames: int
) -> None:
    if there:
        pair.ensure()
    later = NOW + 390 * DAY
    kill_while_it_is_made(pair, later, renames)
    assert len(os.listdir(pair.certificate.parent)) > 2 * there
    assert check_self_signed(pair.certificate, pair.private_key) == []
    assert pair.ensure(later) is True
    assert pair.ensure(later) is False
    assert check_pair(pair.certificate, pair.private_key) == []
    assert certificate_expiry(pair.certificate) > later + 390 * DAY
    assert sorted(os.listdir(pair.certificate.parent)) == ["tls.crt", "tls.key"]


@pytest.mark.parametrize("there", [False, True], ids=["first start", "renewal"])
def test_the_key_that_another_puts_there_after_such_an_end_is_never_overwritten(
    pair: Pair, there: bool
) -> None:
    if there:
        pair.ensure()
    kill_while_it_is_made(pair, NOW + 390 * DAY, 1)
    pair.private_key.write_bytes(OTHER_KEYS["of the same kind"])
    with pytest.raises(ForeignFileError):
        pair.ensure(NOW + 390 * DAY)
    assert pair.private_key.read_bytes() == OTHER_KEYS["of the same kind"]


@pytest.mark.parametrize("there", [False, True], ids=["first start", "renewal"])
def test_the_certificate_that_another_puts_there_after_such_an_end_is_never_overwritten(
    pair: Pair, there: bool
) -> None:
    if there:
        pair.ensure()
    kill_while_it_is_made(pair, NOW + 390 * DAY, 1)
    theirs = certificates.certificate(KEY)
    pair.certificate.write_bytes(theirs)
    with pytest.raises(ForeignFileError, match="was not made by this proxy"):
        pair.ensure(NOW + 390 * DAY)
    assert pair.certificate.read_bytes() == theirs


def test_a_key_without_a_certificate_is_never_overwritten(pair: Pair) -> None:
    pair.private_key.parent.mkdir()
    pair.private_key.write_bytes(b"precious")
    with pytest.raises(ForeignFileError, match=r"tls\.key is there without .*tls\.crt"):
        pair.ensure()
    assert pair.private_key.read_bytes() == b"precious"
    assert not pair.certificate.exists()


def test_a_file_that_is_no_certificate_is_never_overwritten(pair: Pair) -> None:
    pair.certificate.parent.mkdir()
    pair.certificate.write_bytes(b"precious")
    with pytest.raises(ForeignFileError, match="holds no certificate"):
        pair.ensure()
    assert pair.certificate.read_bytes() == b"precious"


def test_many_processes_that_start_at_once_end_with_one_pair(pair: Pair) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: pair.ensure(), range(8)))
    assert made.count(True) == 1
    assert check_pair(pair.certificate, pair.private_key) == []


def test_a_key_that_cannot_be_written_leaves_nothing_behind(pair: Pair, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    pair.private_key = keys / ("k" * 252 + ".pem")  # a name that the file system does not take
    with pytest.raises(OSError, match="File name too long") as raised:
        pair.ensure()
    assert raised.value.filename == str(pair.private_key)
    assert os.listdir(pair.certificate.parent) == os.listdir(keys) == []


def test_a_folder_in_the_place_of_the_key_is_a_problem(pair: Pair) -> None:
    pair.ensure()
    pair.private_key.unlink()
    pair.private_key.mkdir()
    with pytest.raises(ForeignFileError, match="cannot be read: is a directory"):
        pair.ensure()
    assert sorted(os.listdir(pair.certificate.parent)) == ["tls.crt", "tls.key"]
    pair.private_key.rmdir()
    assert pair.ensure() is True


def test_a_folder_is_made_and_its_parents_are_not(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Pair(tmp_path / "one").ensure()
    assert os.listdir(tmp_path) == []


# What a certificate says


@pytest.mark.parametrize(
    "ends",
    [
        datetime(1999, 12, 31, 23, 59, 59),
        datetime(2049, 12, 31, 23, 59, 59),
        datetime(2050, 1, 1),
        datetime(9999, 12, 31),
    ],
)
def test_the_end_of_a_certificate_is_read_in_both_of_its_forms(tmp_path: Path, ends: datetime) -> None:
    file = tmp_path / "any.crt"
    file.write_bytes(certificates.certificate(certificates.rsa_key(2048), ends=ends.replace(tzinfo=UTC)))
    assert certificate_expiry(file) == ends.replace(tzinfo=UTC)


def test_the_first_certificate_of_a_chain_counts(tmp_path: Path) -> None:
    key = certificates.ec_key()
    chain = [certificates.certificate(key, ends=NOW + days * DAY) for days in (10, 20)]
    file = tmp_path / "chain.crt"
    file.write_bytes("Über\n".encode() + b"".join(chain))
    assert certificate_expiry(file) == NOW + 10 * DAY


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_garbage_in_the_place_of_a_certificate_is_a_value_error(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes, at: int, byte: int
) -> None:
    der = bytearray(ssl.PEM_cert_to_DER_cert(certificates.certificate(KEY).decode()))
    der[at % len(der)] = byte
    file = tmp_path_factory.getbasetemp() / "garbage.crt"
    for content in (
        garbage,
        ssl.DER_cert_to_PEM_cert(garbage).encode(),
        ssl.DER_cert_to_PEM_cert(bytes(der)).encode(),
    ):
        file.write_bytes(content)
        with suppress(ValueError):  # nothing else may be raised
            certificate_expiry(file)
