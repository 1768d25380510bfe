"""What happened, and the care of a store, awaited. Long calls hold one worker each."""

from __future__ import annotations

from agentmem.aio.delegating import Delegate, awaited, iterated
from agentmem.history.admin import Admin
from agentmem.history.audit import Audit

__all__ = ["AsyncAdmin", "AsyncAudit"]


class AsyncAudit(Delegate):
    """Asks the log; see `Audit`. Made by `AsyncStore.audit`."""

    __slots__ = ()
    __module__ = "agentmem"
    _sync: Audit

    diff = awaited(Audit.diff)
    diff_revisions = iterated(Audit.diff_revisions)
    blame = awaited(Audit.blame)
    version = awaited(Audit.version)
    revert = awaited(Audit.revert)
    revert_commit = awaited(Audit.revert_commit)
    lineage = awaited(Audit.lineage)
    revert_derived = awaited(Audit.revert_derived)
    races = awaited(Audit.races)
    conflicts = awaited(Audit.conflicts)
    resolve = awaited(Audit.resolve)
    tag = awaited(Audit.tag)
    untag = awaited(Audit.untag)
    tags = awaited(Audit.tags)


class AsyncAdmin(Delegate):
    """Looks after a whole store; see `Admin`. Made by `AsyncStore.admin`.

    What is given as `progress` is called in a worker, not in the event loop.
    """

    __slots__ = ()
    __module__ = "agentmem"
    _sync: Admin

    stats = awaited(Admin.stats)
    reindex = awaited(Admin.reindex)
    index = awaited(Admin.index)
    backup = awaited(Admin.backup)
    export = awaited(Admin.export)
    load = awaited(Admin.load)
    compact = awaited(Admin.compact)
    purge = awaited(Admin.purge)
    verify = awaited(Admin.verify)
