"""What ``postgresql://…`` names: a server, a schema, and how to talk to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from agentmem.errors import InvalidValueError

__all__ = ["Target", "parse_target"]

_DEFAULT_STORE: Final = "agentmem"
_MAX_NAME_BYTES: Final = 63  # NAMEDATALEN - 1; a longer name would be cut off in silence
_DEFAULT_POOL: Final = 10
_MAX_POOL: Final = 1_000
# A peer that is gone without a word (a cut link, a lost host) is noticed within half a minute.
_DEFAULTS: Final[dict[str, Any]] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
    "application_name": "agentmem",
}
# What the target and the environment have no say in: texts are sent as UTF-8.
_FIXED: Final[dict[str, Any]] = {"client_encoding": "utf8"}
_SHAPE: Final = (
    "the postgresql:// URL cannot be read; it is postgresql://USER:PASSWORD@HOST/DATABASE?store="
    "NAME, with the options of libpq and pool_size=N; in a password @ is written %40, / %2F, "
    "? %3F, # %23 and % %25"
)


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed target.

    Attributes:
        conninfo: for libpq, with the password.
        defaults: parameters of libpq that the target does not set itself, or may not.
        store: the name of the store, which is that of its schema.
        pool_size: the most connections that this process opens.
        location: for people: without the password and without options.
    """

    conninfo: str = field(repr=False)
    defaults: dict[str, Any]
    store: str
    pool_size: int
    location: str

    @property
    def schema(self) -> str:
        """The schema, quoted for SQL."""
        return '"' + self.store.replace('"', '""') + '"'


def parse_target(url: str) -> Target:
    """Takes a URL apart into what is ours and what is libpq's.

    Raises:
        InvalidValueError: it cannot be read, or an option of ours has a wrong value. The message
            never holds the URL, which may hold a password.
    """
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        parts = urlsplit(url)
        options = parse_qsl(
            parts.query.replace("+", "%2B"),  # a plus is no space to libpq
            keep_blank_values=True,
            strict_parsing=bool(parts.query),
            errors="strict",
        )
    except ValueError:
        # Not `from error`, here and below: what is quoted there may be a piece of the password.
        raise InvalidValueError(_SHAPE) from None
    # libpq ends the password at the first of these, and takes the rest of it for the host.
    if parts.netloc.count("@") > 1 or "@" in parts.path or parts.fragment:
        raise InvalidValueError(_SHAPE)
    ours = {name: value for name, value in options if name in ("store", "pool_size")}
    theirs = [(name, value) for name, value in options if name not in ours]
    # By hand: urlunsplit leaves the // out where there is no host.
    query = urlencode(theirs, quote_via=quote)
    conninfo = f"{parts.scheme}://{parts.netloc}{parts.path}{'?' if query else ''}{query}"
    try:
        given = conninfo_to_dict(conninfo)
    except ProgrammingError:
        raise InvalidValueError(_SHAPE) from None
    host = given.get("host") or "local socket"
    port = f":{given['port']}" if given.get("port") else ""
    database = given.get("dbname") or given.get("user") or ""
    store = _store_name(ours.get("store", _DEFAULT_STORE))
    return Target(
        conninfo,
        {name: value for name, value in _DEFAULTS.items() if name not in given} | _FIXED,
        store,
        _pool_size(ours.get("pool_size")),
        f"postgresql://{host}{port}/{database}?store={store}",
    )


def _store_name(name: str) -> str:
    if not name or "\x00" in name or len(name.encode(errors="replace")) > _MAX_NAME_BYTES:
        raise InvalidValueError(
            f"a store's name has 1 to {_MAX_NAME_BYTES} bytes and no NUL: store={name[:80]!r}"
        )
    if name.startswith("pg_") or name in ("public", "information_schema"):
        raise InvalidValueError(
            f"store={name!r} is a schema of PostgreSQL's own; give the store another name"
        )
    return name


def _pool_size(text: str | None) -> int:
    if text is None:
        return _DEFAULT_POOL
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MAX_POOL):
        raise InvalidValueError(f"pool_size is a number from 1 to {_MAX_POOL}, not {text[:20]!r}")
    return int(text)
