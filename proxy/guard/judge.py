"""What a whole body asks for, by the kind of route it came on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from proxy.policy.body import Facts, read_body
from proxy.policy.form import read_form
from proxy.policy.routes import ModelPlace, Route


class Asked(NamedTuple):
    """What a body has to be read by."""

    route: Route
    content_type: bytes | None


def judge(asked: Asked, pieces: Sequence[bytes]) -> Facts:
    """Raises ProxyError ``unreadable_body``."""
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    if asked.route.model is ModelPlace.FORM_MODEL:
        return read_form(asked.content_type, body)
    return read_body(asked.route, body)
