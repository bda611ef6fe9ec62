"""The tables of the configuration: every option of this version, its type and its default.

config/config.toml says what each means; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict

from proxy.config.fields import (
    AddressField,
    DrainField,
    DurationField,
    FlagField,
    GuardedBodyField,
    HeaderSizeField,
    NetworksField,
    OriginsField,
    PathField,
    RetentionField,
    RoutesField,
    StoreUrlField,
    TokenFileField,
    UpstreamField,
    one_of,
    whole_number,
)
from proxy.config.issuers import IssuersField
from proxy.config.values import Address, UpstreamUrl, is_loopback


class Table(BaseModel):
    """One table. Its values never change; a new configuration is a new object."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Listen(Table):
    address: AddressField = Address("0.0.0.0", 8443)
    max_connections: Annotated[int, whole_number(1, 1_000_000)] = 4096
    max_header_bytes: HeaderSizeField = 32 * 1024
    header_timeout: DurationField = 10.0
    idle_timeout: DurationField = 75.0
    drain_timeout: DrainField = 300.0
    trusted_proxies: NetworksField = ()


class Tls(Table):
    """``certificate`` and ``private_key`` are None where TLS is off."""

    mode: Annotated[Literal["files", "self-signed", "off"], one_of("files", "self-signed", "off")] = (
        "self-signed"
    )
    certificate: PathField = None
    private_key: PathField = None
    client_ca: PathField = None
    client_auth: Annotated[
        Literal["none", "optional", "required"], one_of("none", "optional", "required")
    ] = "none"


class Upstream(Table):
    url: UpstreamField = UpstreamUrl("http", "127.0.0.1", 11434)
    connect_timeout: DurationField = 5.0


class Ops(Table):
    address: AddressField = Address("127.0.0.1", 9464)
    token_file: TokenFileField = None

    @property
    def token(self) -> str | None:
        return self.token_file.token if self.token_file else None


class Store(Table):
    """``usage_retention`` is in seconds; 0 keeps usage for ever."""

    url: StoreUrlField
    usage_retention: RetentionField = 400 * 86400.0

    @property
    def path(self) -> Path:
        return self.url


class Auth(Table):
    anonymous: RoutesField = frozenset({("GET", "/"), ("HEAD", "/")})
    api_keys: FlagField = True
    ssh_signatures: FlagField = True
    path_keys: FlagField = False
    failures_per_minute: Annotated[int, whole_number(0, 1_000_000)] = 30
    jwt: IssuersField = ()


class Policy(Table):
    """``max_guarded_body`` is in bytes."""

    cloud: FlagField = False
    max_guarded_body: GuardedBodyField = 64 * 1024 * 1024


class Cors(Table):
    allow_origins: OriginsField = ()


class Log(Table):
    """``access`` does not depend on ``level``, which is that of everything else."""

    format: Annotated[Literal["json", "text"], one_of("json", "text")] = "json"
    level: Annotated[
        Literal["debug", "info", "warning", "error"], one_of("debug", "info", "warning", "error")
    ] = "info"
    access: FlagField = True


class Config(Table):
    """A configuration without a fault."""

    listen: Listen
    tls: Tls
    upstream: Upstream
    ops: Ops
    store: Store
    auth: Auth
    policy: Policy
    cors: Cors
    log: Log

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed and yet a danger; said on every start."""
        return tuple(_warnings(self))


# Defaults that are files, so that they are resolved and checked like what people write.
FILES = {("store", "url"): "sqlite:///data/ollama-auth-proxy.db"}
SELF_SIGNED_FILES = {("tls", "certificate"): "data/tls.crt", ("tls", "private_key"): "data/tls.key"}


def _warnings(config: Config) -> Iterator[str]:
    listen, ops, upstream = config.listen, config.ops, config.upstream.url
    if config.tls.mode == "off" and not listen.address.is_loopback:
        yield (
            f"listen.address: keys and prompts cross the network in clear text to {listen.address}, because "
            'tls.mode is "off"; that is right only behind a balancer that ends TLS'
        )
    if any(network.prefixlen == 0 for network in listen.trusted_proxies):
        yield "listen.trusted_proxies: every client may claim any address; name your balancers only"
    if not ops.address.is_loopback and ops.token is None:
        yield f"ops.address: whoever reaches {ops.address} sees the metrics; set ops.token_file"
    if upstream.scheme == "http" and not is_loopback(upstream.host):
        yield (
            f"upstream.url: prompts and answers cross the network in clear text to {upstream.host}, where "
            "others may reach Ollama without a key; run the proxy beside Ollama, or use https"
        )
    if config.auth.path_keys:
        yield (
            "auth.path_keys: keys in URLs end up in the logs of clients and balancers; give the clients that "
            "need this keys of their own, with few rights"
        )
    others = config.auth.ssh_signatures or config.auth.jwt or config.tls.client_auth != "none"
    if not config.auth.api_keys and not others:
        yield "auth.api_keys: no credential is accepted, so only the routes in auth.anonymous answer"
