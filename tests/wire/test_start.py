"""Starting: what is wrong is said at once and whole, and the certificate made at first start is sound."""

from __future__ import annotations

import socket
import ssl
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from .conftest import StartSite
from .messages import request
from .site import Keys, Site, command, free_port, toml


def serve(directory: Path, tables: dict[str, dict[str, Any]] | str) -> subprocess.CompletedProcess[str]:
    config = directory / "config.toml"
    config.write_text(tables if isinstance(tables, str) else toml(tables))
    return subprocess.run(
        command("serve", "--config", str(config)), capture_output=True, text=True, timeout=30, check=False
    )


def settings(directory: Path, **tables: dict[str, Any]) -> dict[str, dict[str, Any]]:
    base: dict[str, dict[str, Any]] = {
        "listen": {"address": f"127.0.0.1:{free_port()}"},
        "tls": {"mode": "off"},
        "ops": {"address": f"127.0.0.1:{free_port()}"},
        "store": {"url": f"sqlite:///{directory}/keys.db"},
    }
    for table, values in tables.items():
        base.setdefault(table, {}).update(values)
    return base


def private_key(path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def check_fault(done: subprocess.CompletedProcess[str], *said: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for words in said:
        assert words in done.stderr, done.stderr


def test_all_faults_of_a_configuration_are_told_at_once(tmp_path: Path) -> None:
    tables = settings(tmp_path, listen={"max_connections": "many", "adress": "x"}, nonsense={"a": 1})
    tables["listen"]["header_timeout"] = "10 parsecs"
    tables["upstream"] = {"url": "ftp://x"}
    check_fault(
        serve(tmp_path, tables), "max_connections", "adress", "nonsense", "header_timeout", "upstream.url"
    )


@pytest.mark.parametrize("text", ["[listen", "\x00", "a = 1\na = 2", "[listen]\naddress = 5"])
def test_a_file_that_is_no_configuration_is_told(text: str, tmp_path: Path) -> None:
    check_fault(serve(tmp_path, text), "config.toml")


def test_a_missing_configuration_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "nothing.toml"
    done = subprocess.run(
        command("serve", "--config", str(missing)), capture_output=True, text=True, timeout=30, check=False
    )
    check_fault(done, "nothing.toml")


@pytest.mark.parametrize("table", ["listen", "ops"])
def test_a_port_in_use_is_told(table: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = serve(tmp_path, settings(tmp_path, **{table: {"address": address}}))
    check_fault(done, address, "in use")


@pytest.mark.parametrize("fault", ["missing", "not_pem", "of_another_key", "empty"])
def test_a_private_key_that_does_not_fit_is_told(fault: str, tmp_path: Path, tls_site: Site) -> None:
    made = tls_site.config.parent / "data"
    key = tmp_path / "tls.key"
    if fault == "of_another_key":
        private_key(key)
    elif fault != "missing":
        key.write_text("" if fault == "empty" else "not a key")
    tls = {"mode": "files", "certificate": str(made / "tls.crt"), "private_key": str(key)}
    check_fault(serve(tmp_path, settings(tmp_path, tls=tls)), "private_key")


def test_the_certificate_made_at_first_start_is_sound(tls_site: Site) -> None:
    folder = tls_site.config.parent / "data"
    certificate = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"localhost", socket.gethostname()} <= set(names.get_values_for_type(x509.DNSName))
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    assert {"127.0.0.1", "::1"} <= addresses
    assert stat.S_IMODE((folder / "tls.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", socket.gethostname()])
def test_the_certificate_is_accepted_for_every_local_name(name: str, tls_site: Site) -> None:
    assert tls_site.trust
    with (
        socket.create_connection(("127.0.0.1", tls_site.port), 5) as raw,
        tls_site.trust.wrap_socket(raw, server_hostname=name) as wrapped,
    ):
        assert wrapped.version() in ("TLSv1.2", "TLSv1.3")


def test_a_certificate_from_files_is_served(start_site: StartSite, tls_site: Site, keys: Keys) -> None:
    made = tls_site.config.parent / "data"
    tls = {"mode": "files", "certificate": str(made / "tls.crt"), "private_key": str(made / "tls.key")}
    site = start_site(tls=tls)
    with (
        socket.create_connection(("127.0.0.1", site.port), 5) as raw,
        ssl.create_default_context(cafile=made / "tls.crt").wrap_socket(
            raw, server_hostname="localhost"
        ) as wrapped,
    ):
        wrapped.sendall(request("GET", "/api/version", keys.default))
        assert wrapped.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
