"""The JSON documents that ``--json`` prints; `docs/cli.md` describes them for users."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from agentmem.coordination.events import Event
from agentmem.coordination.feed import ConsumerState
from agentmem.coordination.leases import LeaseState
from agentmem.coordination.queue_states import QueuedTask, QueueState
from agentmem.coordination.tasks import Task
from agentmem.engines.rows import (
    Migrations,
)
from agentmem.exchange.backup import Backup
from agentmem.exchange.exporting import Exported
from agentmem.exchange.loading import Loaded
from agentmem.history.between import KeyDifference
from agentmem.history.blame import Blame
from agentmem.history.cleaning import Contamination
from agentmem.history.compact import CompactReport
from agentmem.history.copy import CopyReport
from agentmem.history.diff import Difference
from agentmem.history.lineage import Lineage, Node
from agentmem.history.purge import PurgeReport
from agentmem.history.races import Race
from agentmem.history.revert import Reversal
from agentmem.history.undoing import Undone
from agentmem.history.verify import Report
from agentmem.model import Commit, ConflictRecord, Entry, Hit, Tag

__all__ = [
    "backup_document",
    "blame_document",
    "commit_document",
    "compact_document",
    "conflict_document",
    "consumer_document",
    "contamination_document",
    "copy_document",
    "difference_document",
    "entry_document",
    "event_document",
    "exported_document",
    "hit_document",
    "key_difference_document",
    "lease_document",
    "lineage_document",
    "loaded_document",
    "migrations_document",
    "purge_document",
    "queue_document",
    "queued_document",
    "race_document",
    "report_document",
    "reversal_document",
    "tag_document",
    "task_document",
]


def compact_document(report: CompactReport) -> dict[str, Any]:
    """What a compaction did, or would do."""
    return {
        "floor": report.floor,
        "held_by": report.held_by,
        "expired": report.expired,
        "versions": report.versions,
        "results": report.results,
        "dry_run": report.dry_run,
    }


def purge_document(report: PurgeReport) -> dict[str, Any]:
    """What a purge did."""
    return {
        "revision": report.revision,
        "deleted": report.deleted,
        "versions": report.versions,
        "results": report.results,
        "scans": report.scans,
        "conflicts": report.conflicts,
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="microseconds")


def entry_document(entry: Entry[Any]) -> dict[str, Any]:
    """One version of one key."""
    return {
        "namespace": list(entry.namespace),
        "key": entry.key,
        "version": entry.version,
        "revision": entry.revision,
        "value": entry.value,
        "deleted": entry.deleted,
        "purged": entry.purged is not None,
        "agent": entry.agent,
        "op_id": entry.op_id,
        "created_at": _time(entry.created_at),
        "committed_at": _time(entry.committed_at),
        "expires_at": _time(entry.expires_at),
    }


def hit_document(hit: Hit) -> dict[str, Any]:
    """One entry that a search found."""
    return {
        "entry": entry_document(hit.entry),
        "score": hit.score,
        "text_rank": hit.text_rank,
        "vector_rank": hit.vector_rank,
        "distance": hit.distance,
    }


def commit_document(commit: Commit) -> dict[str, Any]:
    """One commit with its changes."""
    return {
        "revision": commit.revision,
        "committed_at": _time(commit.committed_at),
        "agent": commit.agent,
        "op_id": commit.op_id,
        "note": commit.note,
        "metadata": dict(commit.metadata),
        "base_revision": commit.base_revision,
        "changes": [
            {
                "namespace": list(change.namespace),
                "key": change.key,
                "version": change.version,
                "base_version": change.base_version,
                "operation": change.operation,
                "merged": change.merged,
            }
            for change in commit.changes
        ],
        "accepted": [
            {
                "namespace": list(namespace),
                "key": key,
                "seen_version": seen,
                "judged_version": judged,
            }
            for namespace, key, seen, judged in commit.accepted
        ],
        "result": commit.result,
    }


def difference_document(difference: Difference) -> dict[str, Any]:
    """One path at which two versions differ."""
    return {
        "path": difference.path,
        "kind": difference.kind,
        "before": difference.before,
        "after": difference.after,
    }


def key_difference_document(difference: KeyDifference) -> dict[str, Any]:
    """One key that differs between two revisions."""
    before, after = difference.before, difference.after
    return {
        "namespace": list(difference.namespace),
        "key": difference.key,
        "before_version": 0 if before is None else before.version,
        "after_version": 0 if after is None else after.version,
        "differences": [difference_document(each) for each in difference.differences],
    }


def blame_document(blame: Blame) -> dict[str, Any]:
    """One path of a value, and who set it."""
    return {
        "path": blame.path,
        "value": blame.value,
        "version": blame.version,
        "revision": blame.revision,
        "operation": blame.operation,
        "merged": blame.merged,
        "agent": blame.agent,
        "op_id": blame.op_id,
        "committed_at": _time(blame.committed_at),
        "note": blame.note,
        "or_earlier": blame.or_earlier,
    }


def _undone_document(undone: Undone) -> dict[str, Any]:
    return {
        "namespace": list(undone.namespace),
        "key": undone.key,
        "version": undone.version,
        "restored": undone.restored,
        "current": undone.current,
        "current_agent": undone.current_agent,
        "outcome": undone.outcome,
        "strategy": undone.strategy,
    }


def reversal_document(reversal: Reversal) -> dict[str, Any]:
    """A commit that undoes, as it is or as it would be."""
    return {
        "commit": None if reversal.commit is None else commit_document(reversal.commit),
        "keys": [_undone_document(each) for each in reversal.keys],
    }


def conflict_document(record: ConflictRecord) -> dict[str, Any]:
    """One conflict on record."""
    return {
        "id": record.id,
        "namespace": list(record.namespace),
        "key": record.key,
        "status": record.status,
        "strategy": record.strategy,
        "kind": record.kind,
        "base_version": record.base_version,
        "theirs_version": record.theirs_version,
        "ours": record.ours,
        "agent": record.agent,
        "op_id": record.op_id,
        "revision": record.revision,
        "detected_at": _time(record.detected_at),
        "note": record.note,
        "details": record.details,
    }


def _node_document(node: Node) -> dict[str, Any]:
    return {
        "namespace": list(node.namespace),
        "key": node.key,
        "version": node.version,
        "state": node.state,
        "revision": node.revision,
        "operation": node.operation,
        "agent": node.agent,
        "op_id": node.op_id,
        "note": node.note,
        "committed_at": _time(node.committed_at),
    }


def lineage_document(lineage: Lineage) -> dict[str, Any]:
    """What was derived from what; edges name nodes by their place in the list."""
    places = {node: index for index, node in enumerate(lineage.nodes)}
    return {
        "root": places[lineage.root],
        "direction": lineage.direction,
        "nodes": [_node_document(node) for node in lineage.nodes],
        "edges": [
            {
                "derived": places[edge.derived],
                "source": places[edge.source],
                "why": edge.why,
                "asked": dict(edge.asked),
            }
            for edge in lineage.edges
        ],
        "complete": lineage.complete,
        "unkept": lineage.unkept,
        "lost": lineage.lost,
        "outside": lineage.outside,
    }


def contamination_document(found: Contamination) -> dict[str, Any]:
    """What was derived from an entry, and what undoes it."""
    return {
        "source": _node_document(found.source),
        "derived": [_node_document(node) for node in found.derived],
        "carrying": [_node_document(node) for node in found.carrying],
        "keys": [_undone_document(each) for each in found.keys],
        "commit": None if found.commit is None else commit_document(found.commit),
        "unkept": found.unkept,
        "complete": found.complete,
    }


def race_document(race: Race) -> dict[str, Any]:
    """One finding."""
    return {
        "kind": race.kind,
        "namespace": list(race.namespace),
        "key": race.key,
        "versions": [
            {"namespace": list(namespace), "key": key, "version": version}
            for namespace, key, version in race.versions
        ],
        "revisions": list(race.revisions),
        "agents": list(race.agents),
        "explanation": race.explanation,
        "advice": race.advice,
        "figures": dict(race.figures),
    }


def tag_document(tag: Tag) -> dict[str, Any]:
    """One tag."""
    return {
        "name": tag.name,
        "revision": tag.revision,
        "created_at": _time(tag.created_at),
        "agent": tag.agent,
        "note": tag.note,
    }


def report_document(report: Report) -> dict[str, Any]:
    """What a verification found."""
    return {
        "ok": report.ok,
        "revision": report.revision,
        "hash": report.hash,
        "commits": report.commits,
        "entries": report.entries,
        "problems": list(report.problems),
    }


def copy_document(report: CopyReport) -> dict[str, Any]:
    """What a copy did; it is verified, or there is an error in its place."""
    return {
        "from": report.source,
        "to": report.target,
        "began_at": report.began_at,
        "revision": report.revision,
        "hash": report.hash.hex(),
        "source_revision": report.source_revision,
        "commits": report.commits,
        "entries": report.entries,
    }


def backup_document(made: Backup) -> dict[str, Any]:
    """A backup; it is verified, or there is an error in its place."""
    return {
        "path": made.path,
        "store_id": made.store_id,
        "revision": made.revision,
        "hash": made.hash.hex(),
        "commits": made.commits,
        "entries": made.entries,
        "size_bytes": made.size_bytes,
    }


def exported_document(made: Exported) -> dict[str, Any]:
    """What was exported to a file."""
    return {
        "kind": made.kind,
        "store_id": made.store_id,
        "revision": made.revision,
        "hash": made.hash.hex(),
        "commits": made.commits,
        "entries": made.entries,
        "lines": made.lines,
    }


def loaded_document(done: Loaded) -> dict[str, Any]:
    """What was loaded from a file."""
    return {
        "kind": done.kind,
        "source": done.source,
        "revision": done.revision,
        "commits": done.commits,
        "entries": done.entries,
        "kept": done.kept,
        "expired": done.expired,
        "repeated": done.repeated,
    }


def migrations_document(found: Migrations, done: list[str], *, dry_run: bool) -> dict[str, Any]:
    """The migrations of a store, and those that were applied by this command."""
    return {
        "location": found.location,
        "applied": [*found.applied, *done],
        "missing": [name for name in found.missing if name not in done],
        "done": done,
        "dry_run": dry_run,
    }


def lease_document(lease: LeaseState) -> dict[str, Any]:
    """A lease that is held."""
    return {
        "lease": lease.name,
        "scope": None if lease.scope is None else list(lease.scope),
        "key": lease.key,
        "token": lease.token,
        "agent": lease.agent,
        "granted_at": _time(lease.granted_at),
        "expires_in_s": lease.expires_in_s,
        "waiting": lease.waiting,
    }


def queue_document(queue: QueueState) -> dict[str, Any]:
    """How many tasks of a queue are in which state."""
    return {
        "queue": queue.name,
        "scope": None if queue.scope is None else list(queue.scope),
        "waiting": queue.waiting,
        "delayed": queue.delayed,
        "claimed": queue.claimed,
        "behind": queue.behind,
        "dead": queue.dead,
    }


def queued_document(task: QueuedTask) -> dict[str, Any]:
    """A task as it stands in a queue."""
    return {
        "id": task.id,
        "payload": task.payload,
        "state": task.state,
        "priority": task.priority,
        "group": task.group,
        "op_id": task.op_id,
        "attempts": task.attempts,
        "max_attempts": task.max_attempts,
        "token": task.token,
        "agent": task.agent,
        "put_by": task.put_by,
        "put_at": _time(task.put_at),
        "note": task.note,
    }


def task_document(task: Task) -> dict[str, Any]:
    """A task that was claimed."""
    return {
        "queue": task.queue,
        "id": task.id,
        "token": task.token,
        "payload": task.payload,
        "priority": task.priority,
        "group": task.group,
        "attempts": task.attempts,
        "max_attempts": task.max_attempts,
    }


def event_document(event: Event) -> dict[str, Any]:
    """One event of the feed: the commit, with what it wrote."""
    entries = [entry_document(entry) for entry in event.entries]
    return commit_document(event.commit) | {"entries": entries}


def consumer_document(consumer: ConsumerState) -> dict[str, Any]:
    """How far a durable consumer of the feed has come."""
    return {
        "consumer": consumer.name,
        "scope": None if consumer.scope is None else list(consumer.scope),
        "revision": consumer.revision,
        "behind": consumer.behind,
        "moved_at": _time(consumer.moved_at),
        "token": consumer.token,
        "agent": consumer.agent,
    }
