"""Whether a caller may use a route. Pure: deny unless granted."""

from __future__ import annotations

from proxy.errors import ProxyError
from proxy.identity.identity import ANONYMOUS, Identity
from proxy.policy import routes
from proxy.policy.routes import Route


def require_route(route: Route | None, raw_path: bytes) -> Route:
    """The row that was found; asked only after the caller is known.

    Raises ProxyError: 404 ``unknown_route``, 405 ``method_not_allowed``.
    """
    if route is not None:
        return route
    methods = routes.allowed_methods(raw_path)
    if not methods:
        raise ProxyError(
            "unknown_route", "this path is not one of Ollama's routes: check the base URL and the path"
        )
    allow = ", ".join(methods)
    raise ProxyError(
        "method_not_allowed", f"this path takes {allow}", headers=((b"Allow", allow.encode("ascii")),)
    )


def authorise(identity: Identity, route: Route) -> None:
    """Raises ProxyError ``scope_denied``, naming the scope that is missing, where the caller lacks it."""
    if identity is not ANONYMOUS and route.scope_name not in identity.scopes:
        raise ProxyError(
            "scope_denied",
            f"this key lacks the scope '{route.scope_name}': ask the operator for a key that has it",
        )
