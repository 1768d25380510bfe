"""The options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from agentmem.cli.arguments import whole_number

__all__ = [
    "AfterOption",
    "AgentOption",
    "AtOption",
    "ExpectedOption",
    "JsonOption",
    "KeyArgument",
    "LimitOption",
    "NamespaceOption",
    "NoMergeOption",
    "NoteOption",
    "OpIdOption",
    "OverwriteOption",
    "StoreOption",
    "StringOption",
    "TimeoutOption",
    "UptoOption",
]

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="STORE",
        help="A file, or postgresql://HOST/DATABASE?store=NAME; or set AGENTMEM_STORE.",
    ),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option(
        "--namespace", "-n", metavar="NAME", help="A namespace such as team/alice; else the root."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout-s", metavar="SECONDS", help="How long to wait for the store's lock; else 5."
    ),
]

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="The key.", show_default=False)]
AtOption = Annotated[
    str | None,
    typer.Option(
        "--at", metavar="WHEN", help="As of a revision, a tag, or a time (2026-01-31T12:00:00Z)."
    ),
]
AfterOption = Annotated[
    int | None,
    typer.Option("--after", metavar="REVISION", parser=whole_number, help="Only later revisions."),
]
UptoOption = Annotated[
    int | None,
    typer.Option(
        "--upto", metavar="REVISION", parser=whole_number, help="No later revisions than this."
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", parser=whole_number, help="At most so many."),
]
StringOption = Annotated[
    bool, typer.Option("--string", "-s", help="Take it as a string, not as JSON.")
]
ExpectedOption = Annotated[
    int | None,
    typer.Option(
        "--expected-version",
        metavar="N",
        parser=whole_number,
        help="Only if the key is at this version; 0: only if it is absent.",
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace whatever is there, without a warning.")
]
NoMergeOption = Annotated[
    bool, typer.Option("--no-merge", help="If the key has moved, fail instead of merging.")
]
AgentOption = Annotated[
    str | None,
    typer.Option(
        "--agent", metavar="NAME", envvar="AGENTMEM_AGENT", help="Who writes.", show_envvar=True
    ),
]
OpIdOption = Annotated[
    str | None,
    typer.Option("--op-id", metavar="ID", help="Applies once; a repeat gives the first result."),
]
NoteOption = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="Why, for the log.")]
