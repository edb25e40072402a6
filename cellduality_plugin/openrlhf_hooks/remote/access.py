"""Access to a reward server: by its token, as a bearer token or as the password in the server's address."""

from __future__ import annotations

import base64
import hmac
import ipaddress
import os
import secrets

from cellduality_plugin.errors import CellDualityError

TOKEN_VARIABLE = "CELLDUALITY_TOKEN"
_SHORTEST_TOKEN = 16


def find_token(host: str) -> tuple[str, bool]:
    """Return (the token, whether it was just made); a CellDualityError if others reach ``host`` without one."""
    token = os.environ.get(TOKEN_VARIABLE, "")
    if token and (len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        what = f"{TOKEN_VARIABLE} has to have {_SHORTEST_TOKEN} characters or more, and no blanks"
        raise CellDualityError(what, code="weak-token", hint="set a longer one")
    if not token and not is_loopback(host):
        raise CellDualityError(
            f"{host} can be reached from other machines, and {TOKEN_VARIABLE} is not set",
            code="no-token",
            where="--host",
            hint=f"set {TOKEN_VARIABLE} for the server and its clients, or listen on 127.0.0.1",
        )
    return (token, False) if token else (secrets.token_urlsafe(24), True)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def allowed(authorization: str, token: str) -> bool:
    """Return whether an ``Authorization`` header holds the token.

    OpenRLHF's client sends no bearer token; of an address ``http://any:TOKEN@host:port/`` it makes Basic credentials.

    Examples
    --------
    >>> allowed("Bearer secret", "secret"), allowed("Basic " + base64.b64encode(b"any:secret").decode(), "secret")
    (True, True)
    >>> allowed("Bearer other", "secret"), allowed("Basic !", "secret"), allowed("", "secret")
    (False, False, False)
    """
    scheme, _, credentials = authorization.partition(" ")
    given = credentials.strip().encode("utf-8", "replace") if scheme.lower() in ("basic", "bearer") else b""
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).partition(b":")[2]
        except ValueError:
            given = b""
    return hmac.compare_digest(given, token.encode())
