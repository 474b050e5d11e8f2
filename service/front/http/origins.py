"""The Origin header of a socket: browsers let a page of any site open one, so it is judged here."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers

from service.errors import OriginRefused

_DEFAULT_PORTS = {"http": 80, "https": 443}


def check_origin(headers: Headers, allowed: frozenset[str]) -> None:
    """Accept no Origin (no browser), this service's own, or an allowed one.

    Raises OriginRefused, for `null` too, which sandboxed frames and local files send.
    """
    origins = headers.getlist("origin")
    if not origins:
        return
    origin = origins[0].lower()
    if len(origins) == 1 and (origin in allowed or _is_own(origin, headers.get("host", ""))):
        return
    raise OriginRefused("pages of this origin may not connect; see REFINE_ALLOWED_ORIGINS")


def _is_own(origin: str, host: str) -> bool:
    """Compare names and ports alone: a proxy may speak TLS to the page and none to us."""
    try:
        page = urlsplit(origin)
        service = urlsplit(f"{page.scheme}://{host.lower()}")
        default = _DEFAULT_PORTS[page.scheme]
        same_port = (page.port or default) == (service.port or default)
    except (ValueError, KeyError):
        return False
    return bool(page.hostname) and page.hostname == service.hostname and same_port
