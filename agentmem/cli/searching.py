"""Searching, and what searching needs: search, reindex, index."""

from __future__ import annotations

import importlib
import os
import sys
import time
from typing import Annotated, Any, Final

import typer

from agentmem.cli.arguments import parse_at, parse_where, whole_number
from agentmem.cli.call import Call, command
from agentmem.cli.failures import CommandError, ExitCode
from agentmem.cli.options import AtOption
from agentmem.cli.output import as_json, stages_bar
from agentmem.cli.shapes import hit_document
from agentmem.cli.spelling import namespace_text
from agentmem.search.query import MODES

__all__ = ["register"]

_PAUSE_S: Final = 1.0  # between two looks at the log, with --follow
_K: Final = 10


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    command(app, example="agentmem search 'what can we spend?' -n team --k 5")(search)
    command(app, namespaced=False, example="agentmem reindex")(reindex)
    command(app, namespaced=False, example="agentmem index --follow")(index)


def search(
    call: Call,
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="What to look for.", show_default=False)
    ],
    k: Annotated[
        int | None,
        typer.Option("--k", "-k", metavar="N", parser=whole_number, help=f"How many; else {_K}."),
    ] = None,
    offset: Annotated[
        int | None,
        typer.Option("--offset", metavar="N", parser=whole_number, help="After so many."),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            "--mode", metavar="MODE", help="hybrid (else), text or vector.", show_default=False
        ),
    ] = "hybrid",
    where: Annotated[
        str | None,
        typer.Option(
            "--where", metavar="JSON", help="""Only values that match, as '{"done": true}'."""
        ),
    ] = None,
    half_life_s: Annotated[
        float | None,
        typer.Option(
            "--half-life-s", metavar="SECONDS", help="After so long an entry counts half."
        ),
    ] = None,
    at: AtOption = None,
) -> None:
    """Find the entries that fit best, by words and by meaning.

    Meaning needs an embedder: install 'agentmem-store[local]'.
    """
    if mode not in MODES:
        raise CommandError(ExitCode.USAGE, f"--mode is hybrid, text or vector, not {mode!r}")
    view: Any = call.store if at is None else call.store.snapshot(parse_at(at))
    hits = view.search(
        query, namespace=call.namespace, k=_K if k is None else k, offset=offset or 0, mode=mode,
        where=parse_where(where), half_life_s=half_life_s,
    )  # fmt: skip
    if call.out.json:
        call.out.document([hit_document(hit) for hit in hits])
        return
    call.out.table(
        ("score", "namespace", "key", "version", "value"),
        [
            (
                f"{hit.score:.3f}",
                namespace_text(hit.entry.namespace),
                hit.entry.key,
                hit.entry.version,
                as_json(hit.entry.value),
            )
            for hit in hits
        ],
        empty="nothing was found",
    )


def reindex(
    call: Call,
    embedder: Annotated[
        str | None,
        typer.Option(
            "--embedder",
            metavar="NAME",
            help="local (else), or MODULE:NAME of an object that agentmem.open takes.",
        ),
    ] = None,
) -> None:
    """Embed every version of every entry anew.

    Searches go on with the old vectors until all is done. Run it again after an interruption: it
    goes on with what is left.
    """
    with stages_bar("embedding") as progress:
        done = call.store.admin.reindex(_embedder(embedder), progress=progress)
    if call.out.json:
        call.out.document({"embedded": done})
    else:
        call.out.line(f"{done} entries embedded")


def _embedder(name: str | None) -> Any:
    if name is None or name == "local":
        return "local"
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise CommandError(ExitCode.USAGE, f"--embedder is local or MODULE:NAME, not {name!r}")
    here = os.getcwd()
    if here not in sys.path:  # the command's own folder is there instead
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise CommandError(ExitCode.USAGE, f"--embedder {name}: {error}") from error


def index(
    call: Call,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on, as others write, until it is stopped.")
    ] = False,
) -> None:
    """Embed what was deferred, and bring indexes up to date."""
    with stages_bar("indexing") as progress:
        done = call.store.admin.index(progress=progress)
    if not follow:
        if call.out.json:
            call.out.document({"embedded": done})
        else:
            call.out.line(f"{done} entries embedded; the index is up to date")
        return
    while True:
        seen = call.store.revision
        time.sleep(_PAUSE_S)
        if call.store.revision != seen:
            call.store.admin.index()
