"""One process indexes documents anew while another answers from them; its answers do not change.

The one that answers pins its retriever to a revision, and cites what it has read as key@version.
Whatever is indexed meanwhile, the same question gets the same documents; and long after, the
citation still shows what was read. The other one works with LangChain's `index`, which deletes
what its sources no longer hold.

    python examples/rag_that_does_not_drift.py
    python examples/rag_that_does_not_drift.py 'postgresql://host/database?store=rag'

A store that is named must be new; without one, it is a file in a temporary folder. Nothing is
asked of any network: what embeds here counts letters. Give `AgentMemVectorStore` the embeddings
of a model, and leave the rest as it is.
"""

import multiprocessing
import sys
import tempfile
from multiprocessing.synchronize import Event
from pathlib import Path

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import index

import agentmem
from langchain_agentmem import (
    AgentMemRecordManager,
    AgentMemRetriever,
    AgentMemVectorStore,
)

EDITIONS = 5
QUESTION = "What does the tram ticket cost?"


class Letters(Embeddings):
    """Counts letters: a toy, so that the example needs no model."""

    identity = "letters"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[text.lower().count(letter) + 0.01 for letter in "aceiklmrst"] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def edition(number: int) -> list[Document]:
    """The guide as it is printed: prices rise, pages come and go."""
    pages = {
        "tickets.md": f"A tram ticket costs {2 + number} euros.",
        "trams.md": f"{10 + number} trams run each hour.",
        f"news-{number}.md": f"News number {number}: strikes of the trams.",
    }
    return [Document(page_content=text, metadata={"source": name}) for name, text in pages.items()]


def name_of(page: Document) -> str:
    return str(page.metadata["source"])


def print_editions(target: str, pinned: Event, printed: Event) -> None:
    """Indexes one edition after the other: the pages of the last one go, or become new versions."""
    with AgentMemVectorStore(target, Letters(), agent="printer") as pages:
        records = AgentMemRecordManager(pages)
        for number in range(EDITIONS):
            index(edition(number), records, pages, cleanup="full", key_encoder=name_of,
                  force_update=True)  # fmt: skip
            if number == 0:
                printed.set()
                pinned.wait(60)
    printed.set()


def answer(retriever: AgentMemRetriever) -> str:
    """What a model would be given, and would cite."""
    page = retriever.invoke(QUESTION)[0]
    return f"{page.page_content} [{page.metadata['key']}@{page.metadata['version']}]"


def main() -> int:
    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        target = sys.argv[1] if len(sys.argv) > 1 else str(Path(folder) / "rag.db")
        pinned, printed = processes.Event(), processes.Event()
        printer = processes.Process(target=print_editions, args=(target, pinned, printed))
        printer.start()
        printed.wait(60)

        with agentmem.open(target, embedder=Letters()) as store:
            live = AgentMemRetriever(store, namespace="documents", mode="vector")
            retriever = live.at()
            first = answer(retriever)
            print("asked:      ", first)
            pinned.set()
            answers = {first}
            while printer.is_alive():
                answers.add(answer(retriever))
            printer.join()
            print("asked again:", answer(retriever))
            print("asked now:  ", answer(live))
            steady = answers == {first} == {answer(retriever)}
            print(f"while {EDITIONS - 1} editions were indexed, it gave {len(answers)} answer")

            versions = store.history("tickets.md", namespace="documents")
            print("tickets.md, newest first:")
            for entry in versions:
                print(f"  @{entry.version} by {entry.agent}: {entry.value['page_content']}")
            moved = answer(live).endswith(f"[tickets.md@{EDITIONS}]")
            return 0 if steady and moved and len(versions) == EDITIONS else 1


if __name__ == "__main__":
    sys.exit(main())
