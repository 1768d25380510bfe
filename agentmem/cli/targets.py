"""What names a store: a path or a URL, and the URL without what is secret in it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote_plus, urlsplit

__all__ = ["hide_passwords", "is_misspelt", "is_url", "shown", "store_name", "with_store"]

_URL: Final = re.compile(r"\s*postgres(?:ql)?:", re.IGNORECASE)
_SCHEMES: Final = ("postgresql://", "postgres://")
_IN_TEXT: Final = re.compile(r"postgres(?:ql)?:/\S*", re.IGNORECASE)
_HOST: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(:[0-9]*)?")
# Of libpq: password, sslpassword, scram_client_key, scram_server_key, oauth_client_secret.
_SECRET: Final = re.compile(r"password|secret|scram", re.IGNORECASE)
_HIDDEN: Final = "postgresql://..."
_CONNECTION_STRING: Final = re.compile(r"(password\s*=\s*)(?:'(?:[^'\\]|\\.)*'|\S*)", re.IGNORECASE)


def is_url(target: str) -> bool:
    """Whether a target names a server, and not a file."""
    return _URL.match(target) is not None


def is_misspelt(target: str) -> bool:
    """Whether a server is meant, but in a way that would be taken for the name of a file."""
    if is_url(target):
        return not target.startswith(_SCHEMES)
    return _CONNECTION_STRING.search(target) is not None and "://" not in target


def _parts(url: str) -> SplitResult | None:
    """The parts of a URL; None if it cannot be told which of them is a password."""
    try:
        parts = urlsplit(url)
        if parts.query:
            parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        return None
    hosts = parts.netloc.rpartition("@")[2].split(",")
    users = parts.netloc.count("@")
    # What stands behind a password with a bare slash in it looks like a path.
    stray = "@" in parts.path + parts.query or parts.fragment or url.endswith("#") or users > 1
    if stray or not all(_HOST.fullmatch(host) for host in hosts) or not parts.scheme:
        return None
    return parts


def shown(target: str) -> str:
    """A target as it may be printed: the same, without passwords."""
    if not is_url(target):
        return _CONNECTION_STRING.sub(r"\1...", target)
    parts = _parts(target)
    if parts is None:
        return _HIDDEN
    user, at, host = parts.netloc.rpartition("@")
    options = parts.query.split("&") if parts.query else []
    kept = [each for each in options if not _SECRET.search(unquote_plus(each.partition("=")[0]))]
    if ":" not in user and kept == options:
        return target
    netloc = user.partition(":")[0] + at + host
    return _joined(parts, netloc, kept)


def hide_passwords(text: str) -> str:
    """A message with the URLs in it as they may be printed."""
    text = _IN_TEXT.sub(lambda match: shown(match[0]), text)
    return _CONNECTION_STRING.sub(r"\1...", text)


def store_name(url: str) -> str | None:
    """The store that a URL names; None if it leaves that open, empty if it cannot be read."""
    parts = _parts(url)
    if parts is None:
        return ""
    return dict(parse_qsl(parts.query, keep_blank_values=True)).get("store")


def with_store(url: str, name: str) -> str:
    """The URL of another store, for a URL that names none."""
    parts = urlsplit(url)
    options = [parts.query] if parts.query else []
    return _joined(parts, parts.netloc, [*options, f"store={name}"])


def _joined(parts: SplitResult, netloc: str, options: list[str]) -> str:
    # urlunsplit() leaves the slashes out where there is no host, and libpq then reads no URL.
    query = "&".join(options)
    return f"{parts.scheme}://{netloc}{parts.path}{'?' if query else ''}{query}"
