"""Kills ``index()`` at every SQL statement, and looks from another process at what is left.

``python -m tests.integrations.index_kills FOLDER [EVERY]`` tries every EVERY-th statement of a
run, in each mode of cleanup, and prints what it found; ``--peer`` shows what is left by the same
kill of langchain-chroma with LangChain's SQL record manager.

The process that forks the others never opens a store itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.vectorstores import InMemoryVectorStore

import agentmem
from agentmem.engines.sqlite.driver import driver
from langchain_agentmem import AgentMemRecordManager, AgentMemVectorStore

__all__ = ["CLEANUPS", "Report", "survey"]

CLEANUPS: Final = ("incremental", "full", "scoped_full")
_CHUNKS: Final = 3  # of a source, and documents in a batch
_KILLED: Final = -signal.SIGKILL
_NAMESPACE: Final = "team/docs"


def _corpus(**sources: str) -> list[Document]:
    """Three chunks of each source; a letter names the text of a chunk."""
    return [
        Document(page_content=f"{source} {letter}", metadata={"source": source, "chunk": number})
        for source, letters in sources.items()
        for number, letter in enumerate(letters)
    ]


# What was indexed; what is being indexed when the process dies; what is by then to be indexed.
BEFORE: Final = _corpus(a="pqr", b="stu", gone="xyz")
DURING: Final = _corpus(a="pQr", b="stu", c="klm")
AFTER: Final = _corpus(a="pQR", b="sTu", c="kLm")


class Counted(Embeddings):
    """Notes what it embeds, and dies at a text if told to."""

    identity = "index_kills"

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._fake = DeterministicFakeEmbedding(size=8)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.texts += texts
        return self._fake.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        return self._fake.embed_query(text)


def _index(documents: Sequence[Document], records: Any, store: Any, cleanup: str) -> dict[str, int]:
    return index(  # type: ignore[return-value]  # a TypedDict of ints
        documents, records, store, cleanup=cleanup, source_id_key="source",  # type: ignore[arg-type]  # one of CLEANUPS
        batch_size=_CHUNKS, key_encoder="blake2b",
    )  # fmt: skip


def expected(*runs: Sequence[Document], cleanup: str) -> list[str]:
    """What LangChain's own store holds after these runs, none of which died."""
    store = InMemoryVectorStore(Counted())
    records = InMemoryRecordManager("expected")
    records.create_schema()
    for documents in runs:
        _index(documents, records, store, cleanup)
    return sorted(each["text"] for each in store.store.values())


def _forked(work: Callable[[], object]) -> tuple[int, Any]:
    """Does it in a process of its own: its exit code, negative for a signal, and what it said."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reads)
            os.write(writes, json.dumps(work()).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        said = pipe.read()
    _pid, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), json.loads(said) if said else None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[AgentMemVectorStore, AgentMemRecordManager, Counted]]:
    embedding = Counted()
    with AgentMemVectorStore(str(path), embedding, namespace=_NAMESPACE) as store:
        yield store, AgentMemRecordManager(store), embedding


def _run(
    path: Path, documents: Sequence[Document], cleanup: str, die_at: int | None
) -> tuple[int, list[int]]:
    """Indexes; dies at a statement. Returns how many there were, and which begin a commit."""
    count = 0
    begins: list[int] = []
    connect = driver.connect

    def traced(*arguments: Any, **options: Any) -> Any:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(tick)
        return connection

    def tick(statement: str) -> None:
        nonlocal count
        count += 1
        if statement.startswith("BEGIN IMMEDIATE"):
            begins.append(count)
        if count == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    driver.connect = traced  # type: ignore[assignment]  # this process ends soon
    with _opened(path) as (store, records, _embedding):
        _index(documents, records, store, cleanup)
    return count, begins


def apart(store: agentmem.Store, revision: int) -> list[str]:
    """In what records and documents differ at a revision."""
    snapshot = store.snapshot(at=revision)
    documents = {entry.key for entry in snapshot.list(_NAMESPACE)}
    records = {
        entry.key: entry.value["group_id"]
        for entry in snapshot.list(("team", "docs:records", "ids"))
    }
    groups = [entry.key for entry in snapshot.list(("team", "docs:records", "groups"))]
    found = []
    if documents != set(records):
        found.append(
            f"revision {revision}: documents and records differ: {documents ^ set(records)}"
        )
    if sorted(groups) != sorted(key for key, group in records.items() if group is not None):
        found.append(f"revision {revision}: groups and records differ")
    return found


def _look(path: Path, cleanup: str, documents: Sequence[Document]) -> list[str]:
    """What is wrong with a store whose writer died, before and after it is indexed again."""
    with _opened(path) as (vectors, records, embedding):
        store = vectors.store
        problems = [each for at in range(1, store.revision + 1) for each in apart(store, at)]
        listed = set(records.list_keys())
        present = {entry.key: entry.value["page_content"] for entry in store.list(_NAMESPACE)}
        if listed != set(present) or not all(records.exists(list(present))):
            problems.append("the record manager does not list what is there")
        _index(documents, records, vectors, cleanup)
        again = set(embedding.texts) & set(present.values())
        if again:
            problems.append(f"embedded though it was there: {again}")
        if len(embedding.texts) != len(set(embedding.texts)):
            problems.append("embedded twice")
        problems += apart(store, store.revision)
        found = sorted(entry.value["page_content"] for entry in store.list(_NAMESPACE))
        wanted = expected(BEFORE, documents, cleanup=cleanup)
        if found != wanted:
            problems.append(f"holds {found}, not {wanted}")
        embedding.texts.clear()
        third = _index(documents, records, vectors, cleanup)
        if embedding.texts or third["num_added"] or third["num_deleted"]:
            problems.append(f"does again what is done: {third}")
        nearest = [document.page_content for document in vectors.similarity_search(found[0], k=1)]
        if nearest != [found[0]]:
            problems.append(f"search finds {nearest}")
        return problems + [str(each) for each in store.admin.verify().problems]


class Report:
    """What a survey found.

    Attributes:
        statements: of the run that was not killed.
        kills: how many runs were.
        problems: what was wrong.
    """

    def __init__(self) -> None:
        self.statements = 0
        self.kills = 0
        self.problems: list[str] = []


def survey(folder: Path, cleanup: str, points: Callable[[int, list[int]], Sequence[int]]) -> Report:
    """Kills a run at each of these statements, and looks what is left.

    Args:
        points: from the number of statements of a whole run, and those that begin a commit,
            to those at which to die.
    """
    report = Report()
    base = folder / f"{cleanup}-base.db"
    _must(_forked(lambda: _run(base, BEFORE, cleanup, None)))
    whole = _copied(base, folder / f"{cleanup}-whole.db")
    report.statements, begins = _must(_forked(lambda: _run(whole, DURING, cleanup, None)))
    for point in points(report.statements, begins):
        path = _copied(base, folder / f"{cleanup}-{point}.db")
        code, _said = _forked(lambda path=path, point=point: _run(path, DURING, cleanup, point))  # type: ignore[misc]  # mypy does not infer a lambda with defaults
        if code != _KILLED:
            report.problems.append(f"statement {point}: ended with {code}, and was not killed")
            continue
        report.kills += 1
        # For most, the sources have changed again by the time that somebody looks.
        documents = AFTER if point % 2 or point in begins else DURING
        found = _must(
            _forked(lambda path=path, documents=documents: _look(path, cleanup, documents))
        )  # type: ignore[misc]  # as above
        report.problems += [f"statement {point}: {each}" for each in found]
        for left in folder.glob(f"{path.name}*"):
            left.unlink() if left.is_file() else shutil.rmtree(left)
    return report


def _must(result: tuple[int, Any]) -> Any:
    code, said = result
    if code != 0:
        raise RuntimeError(f"a process ended with {code}")
    return said


def _copied(base: Path, path: Path) -> Path:
    for each in base.parent.glob(f"{base.name}*"):
        if each.is_file() and not each.name.endswith("lock"):
            shutil.copy(each, path.parent / each.name.replace(base.name, path.name))
    return path


def peer(folder: Path) -> None:
    """The same with langchain-chroma and LangChain's SQL record manager, killed between the two."""
    import chromadb
    from langchain_chroma import Chroma
    from langchain_classic.indexes import SQLRecordManager

    def opened() -> tuple[Any, Any]:
        client = chromadb.PersistentClient(str(folder / "chroma"))
        records = SQLRecordManager("chroma/docs", db_url=f"sqlite:///{folder}/records.db")
        records.create_schema()
        return Chroma("docs", Counted(), client=client), records

    def died() -> None:
        store, records = opened()
        _index(BEFORE, records, store, "full")
        records.update = lambda *_keys, **_options: os.kill(os.getpid(), signal.SIGKILL)
        _index(_corpus(c="klm"), records, store, "incremental")

    def looked() -> dict[str, Any]:
        store, records = opened()
        documents, listed = set(store.get()["ids"]), set(records.list_keys())
        _index(_corpus(c="kLm"), records, store, "incremental")
        left = [each for each in store.get()["documents"] if each == "c l"]
        return {"documents": len(documents), "records": len(listed), "stale for ever": left}

    code, _said = _forked(died)
    print("killed" if code == _KILLED else f"ended with {code}")
    print(_must(_forked(looked)))


def main(arguments: Sequence[str]) -> int:
    """See the module."""
    folder = Path(arguments[0])
    if "--peer" in arguments:
        peer(folder)
        return 0
    every = int(arguments[1]) if len(arguments) > 1 else 1
    wrong = 0
    for cleanup in CLEANUPS:
        report = survey(folder, cleanup, lambda count, _begins: range(1, count + 1, every))
        print(f"{cleanup}: {report.statements} statements, {report.kills} times killed, "
              f"{len(report.problems)} problems")  # fmt: skip
        for problem in report.problems[:20]:
            print(" ", problem)
        wrong += len(report.problems)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
