"""Alembic runs this for every migration. The caller hands in the connection and owns its transaction."""

from __future__ import annotations

from alembic import context

from proxy.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
