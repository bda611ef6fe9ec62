"""Whether a caller may use a route. Pure: deny unless granted."""

from __future__ import annotations

from proxy.errors import ProxyError
from proxy.identity.identity import ANONYMOUS, Identity
from proxy.policy import routes
from proxy.policy.routes import Route


def no_route(raw_path: bytes) -> ProxyError:
    """What to say where no row matched: ``unknown_route`` or ``method_not_allowed``.

    Said only to callers who are known, so that nobody else learns what is there.
    """
    methods = routes.allowed_methods(raw_path)
    if not methods:
        return ProxyError(
            "unknown_route", "this path is not one of Ollama's routes: check the base URL and the path"
        )
    allow = ", ".join(methods)
    return ProxyError(
        "method_not_allowed", f"this path takes {allow}", headers=((b"Allow", allow.encode("ascii")),)
    )


def authorise(identity: Identity, route: Route) -> None:
    """Raises ProxyError ``scope_denied``, naming the scope that is missing, where the caller lacks it."""
    if identity is not ANONYMOUS and route.scope_name not in identity.scopes:
        raise ProxyError(
            "scope_denied",
            f"this key lacks the scope '{route.scope_name}': ask the operator for a key that has it",
        )
