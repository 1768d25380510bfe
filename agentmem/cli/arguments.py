"""What stands on the command line as values, places, versions and moments."""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime
from typing import Any, Final, NoReturn

import typer
from typer.core import TyperCommand

from agentmem.cli.failures import CommandError, ExitCode

__all__ = [
    "ValuesCommand",
    "check_tag_name",
    "key_and_maybe_version",
    "key_and_version",
    "namespace_argument",
    "parse_at",
    "parse_fields",
    "parse_number",
    "parse_time",
    "parse_value",
    "parse_where",
    "whole_number",
]

_MAX_INPUT_BYTES: Final = 64 * 1024 * 1024
_MAX_WHOLE_NUMBER: Final = 2**63 - 1
_NUMBER: Final = re.compile(r"-\d+(\.\d+)?([eE][+-]?\d+)?")
_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_STDIN: Final = "-"


class ValuesCommand(TyperCommand):
    """A command whose arguments may be negative numbers, which look like options."""

    ignore_unknown_options = True

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses arguments; see `click.Command.parse_args`. Unknown options are still refused."""
        meant = args[args.index("--") + 1 :] if "--" in args else []
        rest = super().parse_args(ctx, list(args))
        for param in self.params:
            found = ctx.params.get(param.name) if param.param_type_name == "argument" else None
            for value in found if isinstance(found, (list, tuple)) else [found]:
                if value not in meant and _looks_like_an_option(value):
                    ctx.fail(
                        f"No such option: {value} (if it is meant as an argument, write -- "
                        "before it)"
                    )
        return rest


def _looks_like_an_option(value: object) -> bool:
    return (
        isinstance(value, str)
        and value.startswith("-")
        and value != _STDIN
        and _NUMBER.fullmatch(value) is None
    )


def parse_value(text: str, *, string: bool) -> Any:
    """A VALUE: JSON or, with ``--string``, the text itself; ``-`` is all of standard input.

    Raises:
        CommandError: it is not JSON.
    """
    given = _standard_input() if text == _STDIN else text
    return given if string else _json(given, "the value", _HOW_TO_GIVE_A_STRING)


def parse_where(text: str | None) -> Any:
    """A ``--where``: JSON."""
    hint = """a filter looks like '{"status": "open"}'"""
    return None if text is None else _json(text, "--where", hint)


def parse_number(text: str) -> int | float:
    """A number as JSON writes it."""
    value = _json(text, "the number", "give one such as 5 or -0.5")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CommandError(ExitCode.REFUSED, "increment is by a number, such as 5 or -0.5")
    return value


_HOW_TO_GIVE_A_STRING: Final = "to store it as a string, add -s"


def _json(text: str, what: str, hint: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_repetition)
    except RecursionError:
        raise CommandError(ExitCode.REFUSED, f"{what} is nested too deeply") from None
    except ValueError as error:
        raise CommandError(ExitCode.REFUSED, f"{what} is not JSON: {error}; {hint}") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _no_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # JSON readers keep the last one and drop the others; a store must lose nothing silently.
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _value in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {repeated!r} stands twice in one object")
    return found


def _standard_input() -> str:
    if sys.stdin is None:
        raise CommandError(ExitCode.USAGE, "- reads standard input, but it is closed")
    read = sys.stdin.buffer.read(_MAX_INPUT_BYTES + 1)
    if len(read) > _MAX_INPUT_BYTES:
        raise CommandError(
            ExitCode.REFUSED, f"standard input holds more than {_MAX_INPUT_BYTES} bytes"
        )
    try:
        return read.decode()
    except UnicodeDecodeError as error:
        raise CommandError(ExitCode.REFUSED, f"standard input is not UTF-8: {error}") from error


def namespace_argument(text: str | None) -> str | list[str] | None:
    """A ``--namespace``: ``team/alice``, or a JSON list of labels that may hold slashes."""
    if text is None or not text.startswith("["):
        return text
    try:
        labels = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
        return labels
    return text


def key_and_version(text: str) -> tuple[str, int]:
    """``KEY@VERSION``, parted at the last ``@``: a key may hold others."""
    key, at, version = text.rpartition("@")
    if not at or not key or not _is_whole(version):
        raise typer.BadParameter(
            f"{text!r} is not KEY@VERSION, for example plan@2; agentmem history KEY lists versions"
        )
    return key, int(version)


def key_and_maybe_version(text: str) -> tuple[str, int | None]:
    """``KEY`` or ``KEY@VERSION``: what stands behind the last ``@`` is a version if it is one."""
    key, at, version = text.rpartition("@")
    return (key, int(version)) if at and key and _is_whole(version) else (text, None)


def whole_number(text: str) -> int:
    """A number from 0 on that fits into 64 bits."""
    if not _is_whole(text):
        raise typer.BadParameter(f"{text!r} is not a whole number from 0 to {_MAX_WHOLE_NUMBER}.")
    return int(text)


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= _MAX_WHOLE_NUMBER


def parse_at(text: str | None) -> int | str | datetime | None:
    """An ``--at``: digits are a revision, what begins like a date is a time, else it is a tag."""
    if text is None:
        return None
    if text.isascii() and text.isdecimal():
        return whole_number(text)
    return text if _TIME.match(text) is None else _moment(text, "--at")


def parse_time(text: str | None, option: str) -> datetime | None:
    """A time with its zone, as that of an ``--at``."""
    return None if text is None else _moment(text, option)


def _moment(text: str, option: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError(ExitCode.REFUSED, f"{option} {text}: {error}") from error
    if moment.tzinfo is None:
        raise CommandError(
            ExitCode.REFUSED,
            f"{option} {text} has no time zone; add one, as in 2026-01-31T12:00:00Z or +02:00",
        )
    return moment


def parse_fields(texts: list[str] | None, option: str) -> dict[str, Any] | None:
    """Fields as NAME=VALUE each; VALUE is JSON, and what is none is a string."""
    if not texts:
        return None
    fields: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign:
            raise CommandError(ExitCode.USAGE, f"{option} {text} is not NAME=VALUE, as run=r17")
        if name in fields:
            raise CommandError(ExitCode.USAGE, f"{option} names {name!r} twice")
        try:
            fields[name] = json.loads(value, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            fields[name] = value
    return fields


def check_tag_name(name: str) -> str:
    """A name for a tag that ``--at`` can tell from a revision and from a time."""
    if name.isdecimal() or _TIME.match(name) is not None:
        raise typer.BadParameter(f"{name!r} would be read as a revision or a time by --at")
    return name
