"""Where something came from, what came of it, and what went wrong: why, races, revert-derived."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from agentmem.cli.arguments import key_and_maybe_version, key_and_version, parse_at, whole_number
from agentmem.cli.asking import YesOption, confirm
from agentmem.cli.call import Call, command
from agentmem.cli.options import AgentOption, LimitOption, NoMergeOption, NoteOption, OpIdOption
from agentmem.cli.output import Branch, Output
from agentmem.cli.shapes import contamination_document, lineage_document, race_document
from agentmem.cli.spelling import namespace_text, second
from agentmem.history.cleaning import Contamination
from agentmem.history.lineage import Edge, Lineage, Node
from agentmem.model import display_key

__all__ = ["register"]

_STYLES: Final = {"kept": None, "purged": "red", "compacted": "dim"}
_LIMIT: Final = 1_000
_CHANGED: Final = ("undone", "merged")


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    command(app, example="agentmem why plan@2")(why)
    command(app, name="revert-derived", example="agentmem revert-derived fact@1 --dry-run")(
        revert_derived
    )
    command(app, example="agentmem races --since monday")(races)


def why(
    call: Call,
    key: Annotated[
        str,
        typer.Argument(metavar="KEY", help="As plan, or plan@2.", show_default=False),
    ],
    down: Annotated[
        bool, typer.Option("--down", help="What was derived from it, instead.")
    ] = False,
    depth: Annotated[
        int | None,
        typer.Option("--depth", metavar="N", parser=whole_number, help="At most N steps away."),
    ] = None,
    limit: LimitOption = None,
) -> None:
    """Show what an entry was derived from, as a tree."""
    name, version = key_and_maybe_version(key)
    found = call.store.audit.lineage(
        name,
        version,
        namespace=call.namespace,
        direction="down" if down else "up",
        depth=depth,
        limit=_LIMIT if limit is None else limit,
    )
    if call.out.json:
        call.out.document(lineage_document(found))
        return
    call.out.tree(_tree(found))
    for line in _rest(found):
        call.out.line(line, "dim")


def _tree(lineage: Lineage) -> Branch:
    """The lineage from its root on; what hangs on two branches is drawn out at the first."""
    around: dict[Node, dict[Node, list[Edge]]] = {}
    up = lineage.direction == "up"
    for edge in lineage.edges:
        near, far = (edge.derived, edge.source) if up else (edge.source, edge.derived)
        around.setdefault(near, {}).setdefault(far, []).append(edge)
    root = Branch("")
    drawn: set[Node] = set()
    waiting = [(lineage.root, root, "")]  # in the order of the lines, the next one last
    while waiting:
        node, above, reasons = waiting.pop()
        again = node in drawn and node in around
        text = f"{reasons}{_node_text(node)}{' (above)' if again else ''}"
        branch = Branch(text, "dim" if again else _STYLES[node.state])
        above.branches.append(branch)
        if node in drawn:
            continue
        drawn.add(node)
        further = sorted(around.get(node, {}).items(), key=lambda item: _order(item[0]))
        for far, edges in reversed(further):
            reason = ", ".join(dict.fromkeys(map(_reason, edges)))
            waiting.append((far, branch, f"{reason}: "))
    return root.branches[0]


def _order(node: Node) -> tuple[int, str, int]:
    return -(node.revision or 0), node.key, node.version


def _reason(edge: Edge) -> str:
    if edge.why == "search" and "search" in edge.asked:
        return f"search {edge.asked['search']!r}"
    if edge.why == "scan":
        namespace = namespace_text(tuple(edge.asked.get("namespace", ()))) or "the root"
        return f"scan of {namespace}"
    return edge.why


def _node_text(node: Node) -> str:
    name = f"{display_key(node.namespace, node.key)}@{node.version}"
    if node.revision is None:
        return f"{name}  (compacted)"
    by = f" by {node.agent}" if node.agent is not None else ""
    note = f": {node.note}" if node.note is not None else ""
    purged = " (purged)" if node.state == "purged" else ""
    when = second(node.committed_at)
    return f"{name}  {node.operation}{by}, revision {node.revision}, {when}{note}{purged}"


def _rest(lineage: Lineage) -> list[str]:
    """What the tree does not show."""
    lines = []
    if not lineage.complete:
        lines.append("this is not all: --depth or --limit left something out, or it was compacted")
    if lineage.lost:
        lines.append(f"{lineage.lost} entries that scans had found were compacted")
    if lineage.unkept:
        lines.append(f"{lineage.unkept} commits kept nothing of what they had read")
    if lineage.outside:
        lines.append(f"{lineage.outside} entries lie outside of this view")
    return lines


def revert_derived(
    call: Call,
    key_version: Annotated[
        str, typer.Argument(metavar="KEY@VERSION", help="As fact@1.", show_default=False)
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done.")
    ] = False,
    no_merge: NoMergeOption = False,
    yes: YesOption = False,
    agent: AgentOption = None,
    op_id: OpIdOption = None,
    note: NoteOption = None,
) -> None:
    """Undo an entry and all that was derived from it, in one commit."""
    key, version = key_and_version(key_version)
    audit, merge = call.store.audit, not no_merge
    plan = audit.revert_derived(key, version, namespace=call.namespace, merge=merge)
    changed = [each for each in plan.keys if each.outcome in _CHANGED]
    if dry_run or not changed:
        _print_contamination(call.out, plan)
        return
    if not call.out.json and not yes:
        _print_contamination(call.out, plan)
    names = "1 key" if len(changed) == 1 else f"{len(changed)} keys"
    confirm(f"Undo what was derived from {key!r} version {version} in {names}?", yes=yes)
    done = audit.revert_derived(
        key,
        version,
        namespace=call.namespace,
        dry_run=False,
        merge=merge,
        agent=agent,
        op_id=op_id,
        note=note,
    )
    if call.out.json or yes:
        _print_contamination(call.out, done)
    else:
        _print_commit(call.out, done)


def _print_contamination(out: Output, found: Contamination) -> None:
    if out.json:
        out.document(contamination_document(found))
        return
    out.table(
        ("namespace", "key", "version", "outcome", "restored", "now", "agent", "strategy"),
        [
            (
                namespace_text(each.namespace),
                each.key,
                each.version,
                each.outcome,
                (each.restored or "absent") if each.outcome in _CHANGED else None,
                each.current or "absent",
                each.current_agent,
                each.strategy,
            )
            for each in found.keys
        ],
    )
    if found.derived:
        derived = f"{len(found.derived)} derived entries in {len(found.keys)} keys"
        carrying = f"; innocent ones that carry them: {len(found.carrying)}"
        carrying = carrying if found.carrying else ""
        out.line(derived + carrying, "dim")
    if not found.complete:
        out.line("some of the history since was compacted: there may be more", "yellow")
    if found.unkept:
        out.line(f"{found.unkept} commits since kept nothing of what they had read", "yellow")
    _print_commit(out, found)


def _print_commit(out: Output, found: Contamination) -> None:
    if found.commit is not None:
        again = " (the first result of this op id)" if found.commit.replayed else ""
        out.line(f"undone at revision {found.commit.revision}{again}")


def races(
    call: Call,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="WHEN",
            help="After a revision, a tag, or a time (2026-01-31T12:00:00Z).",
        ),
    ] = None,
    fresh_s: Annotated[
        float,
        typer.Option(
            "--fresh-s",
            metavar="SECONDS",
            help="How old a version may be for a blind write over it to count.",
        ),
    ] = 3_600.0,
    limit: LimitOption = None,
) -> None:
    """List races that nobody was told of."""
    found = call.store.audit.races(
        parse_at(since),
        namespace=call.namespace,
        fresh_s=fresh_s,
        limit=_LIMIT if limit is None else limit,
    )
    if call.out.json:
        call.out.document([race_document(race) for race in found])
        return
    columns = ("kind", "namespace", "key", "revisions", "what happened", "what would help")
    rows = [
        (
            race.kind,
            namespace_text(race.namespace),
            race.key,
            ", ".join(map(str, race.revisions)),
            race.explanation,
            race.advice,
        )
        for race in found
    ]
    if not (call.out.terminal and rows):
        call.out.table(columns, rows, empty="no races found")
        return
    for index, row in enumerate(rows):  # sentences are for reading, not for columns
        if index:
            call.out.line("")
        call.out.fields(list(zip(columns, row, strict=True)))
