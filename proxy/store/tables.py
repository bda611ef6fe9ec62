"""The tables, as the newest migration leaves them. Times are integer unix seconds."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

metadata = MetaData()

keys = Table(
    "keys",
    metadata,
    Column("id", String(10), nullable=False),
    Column("name", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("scopes", Text, nullable=False),  # JSON array
    Column("models", Text),  # JSON array; NULL is every model
    Column("cloud", Boolean, nullable=False),
    Column("limits", Text, nullable=False),  # JSON object
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Column("last_used", BigInteger),
    Column("revoked", BigInteger),
    PrimaryKeyConstraint("id", name="pk_keys"),
)

_not_revoked = keys.c.revoked.is_(None)
Index("uq_keys_name", keys.c.name, unique=True, sqlite_where=_not_revoked, postgresql_where=_not_revoked)
"""A name is free again once its key is revoked."""

key_secrets = Table(
    "key_secrets",
    metadata,
    Column("key_id", String(10), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    PrimaryKeyConstraint("key_id", "digest", name="pk_key_secrets"),
    ForeignKeyConstraint(["key_id"], ["keys.id"], name="fk_key_secrets_key_id", ondelete="CASCADE"),
)

usage = Table(
    "usage",
    metadata,
    Column("hour", BigInteger, nullable=False),  # when it began
    Column("key_id", String(10), nullable=False),  # empty for callers without a key of ours
    Column("key_name", String(64), nullable=False),  # at the time; keys that are gone keep their usage
    Column("model", Text, nullable=False),  # empty for requests of no model
    Column("route", Text, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    # The hour first: usage is read from an hour on, and removed up to one.
    PrimaryKeyConstraint("hour", "key_id", "key_name", "model", "route", name="pk_usage"),
    sqlite_with_rowid=False,
)

usage_writers = Table(
    "usage_writers",
    metadata,
    Column("id", String(32), nullable=False),  # a process
    Column("batch", BigInteger, nullable=False),  # the number of the last one that it has written
    Column("hour", BigInteger, nullable=False),  # the newest in that
    PrimaryKeyConstraint("id", name="pk_usage_writers"),
)
