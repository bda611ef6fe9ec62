"""Whether the proxy runs, and who else has its ports."""

from __future__ import annotations

import errno
import os
import resource
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from proxy.config.values import Address
from proxy.doctor.findings import Level
from proxy.doctor.listeners import TIMEOUT, judge_bind, try_to_bind

from ..certificates import Authority
from ..clients.programs import cannot_run
from ..wire.site import Keys, Site, make_key
from .chains import Server, context
from .deployment import Deployment, Ollama, ollama

NO_KEY = "oap_0123456789_nobody-has-this"
GREETING = b"HTTP/1.1 200 OK\r\nX-Request-Id: 1\r\nContent-Length: 0\r\n\r\n"
STRANGER = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path, "http://127.0.0.1:9", tls={"mode": "off"})


@contextmanager
def listener(
    answer: bytes, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[int]:
    """Says the same to everybody, or nothing."""
    with socket.create_server((host, port)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection = listening.accept()[0]
                except OSError:
                    return
                with suppress(OSError):
                    talking = tls.wrap_socket(connection, server_side=True) if tls else connection
                    talking.recv(4096)
                    if answer:
                        talking.sendall(answer)
                        talking.recv(4096)
                    talking.close()

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


# Nothing runs


def test_a_proxy_that_does_not_run_is_found(deployment: Deployment) -> None:
    found = deployment.walk()
    assert found["proxy_not_running"].level is Level.WARNING
    assert "ollama-auth-proxy serve" in found["proxy_not_running"].mend
    assert "ops_not_reachable" not in found


@pytest.mark.parametrize("option", ["listen", "ops"])
def test_an_address_that_is_not_here_is_found(deployment: Deployment, option: str) -> None:
    deployment.tables[option]["address"] = "192.0.2.77:8443"
    found = deployment.walk()["address_not_here"]
    assert (found.level, f"in {option}.address" in found.mend) == (Level.ERROR, True)


@pytest.mark.parametrize("option", ["listen", "ops"])
def test_the_same_port_of_one_address_is_found(deployment: Deployment, option: str) -> None:
    with listener(STRANGER, host="127.0.0.2") as port:
        deployment.tables[option]["address"] = f"0.0.0.0:{port}"
        found = deployment.walk()["port_taken"]
    assert (found.level, f"another {option}.address" in found.mend) == (Level.ERROR, True)


@pytest.mark.parametrize("option", ["listen", "ops"])
def test_port_0_cannot_be_asked_and_is_not_called_well(deployment: Deployment, option: str) -> None:
    deployment.tables[option]["address"] = "127.0.0.1:0"
    found = deployment.walk()["port_unknown"]
    assert (found.level, option in found.seen) == (Level.NOTE, True)


def test_a_port_that_this_user_may_not_have_is_found() -> None:
    if os.geteuid() != 0:
        cannot_run("only root can become somebody else")
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 1:
        pytest.skip("every user of this machine may listen on every port")
    address = Address("127.0.0.1", 1)
    if (pid := os.fork()) == 0:
        os.setuid(65534)
        os._exit(try_to_bind(address))
    fault = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    (found,) = judge_bind(fault, "listen.address", address)
    assert (found.code, found.level) == ("port_not_allowed", Level.ERROR)
    assert "CAP_NET_BIND_SERVICE" in found.mend


def test_any_other_fault_of_listening_is_named() -> None:
    (found,) = judge_bind(errno.ENOBUFS, "listen.address", Address("127.0.0.1", 1))
    assert "ENOBUFS" in found.seen


# Others listen


@pytest.mark.parametrize("option", ["listen", "ops"])
def test_another_server_on_the_port_is_found(deployment: Deployment, option: str) -> None:
    with listener(STRANGER) as port:
        deployment.tables[option]["address"] = f"127.0.0.1:{port}"
        found = deployment.walk()["port_taken"]
    assert found.level is Level.ERROR
    assert f"sport = :{port}" in found.mend
    assert f"another {option}.address" in found.mend


def test_a_server_that_speaks_no_tls_is_found(deployment: Deployment) -> None:
    deployment.tables["tls"]["mode"] = "self-signed"
    with listener(STRANGER) as port:
        deployment.tables["listen"]["address"] = f"127.0.0.1:{port}"
        found = deployment.walk()
    assert found["port_taken"].level is Level.ERROR
    assert "does not answer TLS" in found["port_taken"].seen


def test_a_server_that_says_nothing_is_found_in_time(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.doctor.listeners.TIMEOUT", TIMEOUT / 10)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        deployment.tables["listen"]["address"] = f"127.0.0.1:{silent.getsockname()[1]}"
        assert deployment.walk()["port_taken"].level is Level.ERROR


def test_something_between_that_ends_tls_is_found(deployment: Deployment) -> None:
    deployment.tables["tls"] = Server().write(deployment.folder)
    with listener(GREETING, tls=context(deployment.tables["tls"])) as port:
        deployment.tables["listen"]["address"] = f"127.0.0.1:{port}"
        found = deployment.walk()
    assert found["certificate_served"].level is Level.OK
    assert found["protocol_not_ours"].level is Level.WARNING


# The proxy runs


@pytest.fixture(scope="module")
def well() -> Iterator[Ollama]:
    with ollama() as server:
        yield server


@pytest.fixture(scope="module")
def site(well: Ollama, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("running")
    store = folder / "keys.db"
    key = make_key(store, "laptop")
    site = Site(folder, Keys(store, *[key] * 9), upstream={"url": well.url})
    yield site
    site.stop()


@pytest.fixture
def of_site(site: Site, well: Ollama, tmp_path: Path) -> Deployment:
    """The configuration of the running proxy, to be changed."""
    data = site.config.parent / "data"
    return Deployment(
        tmp_path,
        well.url,
        listen={"address": f"127.0.0.1:{site.port}"},
        ops={"address": f"127.0.0.1:{site.ops_port}"},
        tls={
            "mode": "files",
            "certificate": str(data / "tls.crt"),
            "private_key": str(data / "tls.key"),
        },
        store={"url": f"sqlite:///{site.keys.store}"},
    )


def test_a_deployment_that_is_well_has_nothing_worse_than_notes(of_site: Deployment) -> None:
    found = of_site.walk()
    assert {code for code, finding in found.items() if finding.level > Level.NOTE} <= {"open_files_limited"}
    well = {"proxy_running", "certificate_served", "proxy_ready", "open_files", "store_writable", "keys"}
    assert {code: found[code].level for code in well} == dict.fromkeys(well, Level.OK)


def test_the_owner_of_the_running_proxy_is_who_may_own_its_files(of_site: Deployment) -> None:
    assert "user_unknown" not in of_site.walk()


def test_another_certificate_than_that_of_the_file_is_found(of_site: Deployment) -> None:
    of_site.tables["tls"] = Server().write(of_site.folder)
    found = of_site.walk()["certificate_not_served"]
    assert (found.level, "SIGHUP" in found.mend) == (Level.WARNING, True)


def test_ops_that_listens_elsewhere_is_found(of_site: Deployment) -> None:
    of_site.tables["ops"]["address"] = "127.0.0.1:9"
    assert of_site.walk()["ops_not_reachable"].level is Level.ERROR


def test_a_proxy_that_runs_with_tls_is_not_taken_for_one_without(of_site: Deployment) -> None:
    of_site.tables["tls"] = {"mode": "off"}
    found = of_site.walk()["port_taken"]
    assert "another tls.mode" in found.mend


def test_too_few_open_files_of_the_running_proxy_are_found(of_site: Deployment, site: Site) -> None:
    before = resource.prlimit(site.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(site.process.pid, resource.RLIMIT_NOFILE, (180, before[1]))
    try:
        found = of_site.walk()["open_files_limited"]
    finally:
        resource.prlimit(site.process.pid, resource.RLIMIT_NOFILE, before)
    assert found.level is Level.WARNING
    assert "180" in found.seen
    assert "192" in found.mend  # two for each of 64 connections, and 64


def test_no_more_is_asked_of_a_proxy_that_wants_certificates_of_clients(well: Ollama, tmp_path: Path) -> None:
    clients = tmp_path / "clients.pem"
    clients.write_bytes(Authority().certificate)
    tls = {"client_ca": str(clients), "client_auth": "required"}
    store = tmp_path / "keys.db"
    site = Site(tmp_path, Keys(store, *[NO_KEY] * 9), upstream={"url": well.url}, tls=tls)
    try:
        same = Deployment(tmp_path / "asking", well.url)
        same.folder.mkdir()
        data = site.config.parent / "data"
        same.tables["listen"]["address"] = f"127.0.0.1:{site.port}"
        same.tables["ops"]["address"] = f"127.0.0.1:{site.ops_port}"
        same.tables["tls"] = {
            "mode": "files",
            "certificate": str(data / "tls.crt"),
            "private_key": str(data / "tls.key"),
            **tls,
        }
        found = same.walk()
    finally:
        site.stop()
    assert found["proxy_asks_for_certificate"].level is Level.NOTE
    assert found["certificate_served"].level is Level.OK


def test_a_proxy_that_cannot_serve_says_why(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.db", *[NO_KEY] * 9)
    site = Site(
        tmp_path, keys, wait_for="/healthz", upstream={"url": "http://127.0.0.1:9"}, tls={"mode": "off"}
    )
    try:
        same = Deployment(tmp_path / "asking", "http://127.0.0.1:9", tls={"mode": "off"})
        same.folder.mkdir()
        same.tables["listen"]["address"] = f"127.0.0.1:{site.port}"
        same.tables["ops"]["address"] = f"127.0.0.1:{site.ops_port}"
        found = same.walk()["proxy_not_ready"]
    finally:
        site.stop()
    assert found.level is Level.ERROR
    assert "upstream: Ollama" in found.seen


# What the configuration warns about


@pytest.mark.parametrize(
    ("tables", "code"),
    [
        ({"ops": {"address": "0.0.0.0:9"}}, "config_ops_address"),
        ({"listen": {"address": "0.0.0.0:7"}}, "config_listen_address"),
        ({"auth": {"path_keys": True}}, "config_auth_path_keys"),
        ({"upstream": {"url": "http://[::ffff:127.0.0.1]:8"}}, "config_upstream_url"),
    ],
)
def test_warnings_of_the_configuration_have_a_code_each(
    deployment: Deployment, tables: dict[str, dict[str, object]], code: str
) -> None:
    for table, values in tables.items():
        deployment.tables.setdefault(table, {}).update(values)
    found = deployment.walk()[code]
    assert (found.level, bool(found.mend)) == (Level.WARNING, True)
