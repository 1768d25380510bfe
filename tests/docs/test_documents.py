"""Every document for users is true: its blocks run, its links lead somewhere, its names exist."""

from __future__ import annotations

import builtins
import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

import agentmem
import langgraph_agentmem
from agentmem.history.admin import Admin
from agentmem.history.audit import Audit
from tests.docs.blocks import LANGUAGES, ROOT, Block, blocks_of, run

DOCUMENTS: Final = (
    ROOT / "README.md",
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
)

MAX_FIRST_SCREEN_LINES: Final = 45
FIRST_SCREEN_ENDS: Final = "<!-- end of the first screen -->"

_LINK: Final = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")
_ERROR_NAME: Final = re.compile(r"\b[A-Z][A-Za-z]+(?:Error|Warning)\b")
_METHOD: Final = re.compile(
    r"\b(await )?(store|tx|snap|store\.audit|store\.admin|merge)\.([a-z_]+)\b(?!\.)"
)
_VIEWS: Final[dict[str, object]] = {
    "store": agentmem.Store,
    "tx": agentmem.Transaction,
    "snap": agentmem.Snapshot,
    "store.audit": Audit,
    "store.admin": Admin,
    "merge": agentmem.merge,
}
_ASYNC_VIEWS: Final[dict[str, object]] = {
    "store": agentmem.AsyncStore,
    "tx": agentmem.AsyncTransaction,
    "snap": agentmem.aio.AsyncSnapshot,
    "store.audit": agentmem.AsyncAudit,
    "store.admin": agentmem.AsyncAdmin,
}
_SETUP_LINE: Final = re.compile(
    r"pip install '?agentmem-store(?:\[(?P<extra>[a-z,]+)\])?'?|make (?P<target>[a-z]+)"
    r"|python (?P<script>examples/\S+\.py)|agentmem demo|#.*|"
)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=_name)


def _first_screen(text: str) -> list[str]:
    """What stands before the marker or, without one, before the second heading of level two."""
    lines = text.splitlines()
    if FIRST_SCREEN_ENDS in lines:
        return lines[: lines.index(FIRST_SCREEN_ENDS)]
    headings = [index for index, line in enumerate(lines) if line.startswith("## ")]
    return lines[: headings[1]] if len(headings) > 1 else lines


def test_there_are_documents() -> None:
    assert len(DOCUMENTS) >= 7


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=pytest.mark.slow if path.parent.name == "examples" else ())
        for path in DOCUMENTS
    ],
    ids=_name,
)
def test_document_does_what_it_shows(path: Path, tmp_path: Path) -> None:
    run(path, tmp_path)


@every_document
def test_links_lead_to_files_and_headings(path: Path) -> None:
    for target, anchor in _LINK.findall(path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        linked = (path.parent / target).resolve() if target else path
        assert linked.exists(), f"{_name(path)} links to {target}, which is not there"
        if anchor:
            headings = _headings(linked.read_text(encoding="utf-8"))
            assert anchor[1:] in headings, f"{target or path.name} has no heading {anchor}"


def _headings(text: str) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@every_document
def test_errors_that_are_named_exist(path: Path) -> None:
    for name in _ERROR_NAME.findall(path.read_text(encoding="utf-8")):
        known = any(hasattr(home, name) for home in (agentmem, builtins, langgraph_agentmem))
        assert known, f"{_name(path)} names {name}"


@every_document
def test_methods_that_are_named_exist(path: Path) -> None:
    for awaited, view, name in _METHOD.findall(path.read_text(encoding="utf-8")):
        views = _ASYNC_VIEWS if awaited else _VIEWS
        assert hasattr(views[view], name), f"{_name(path)} names {view}.{name}"


@every_document
def test_blocks_that_are_not_run_hold_only_ways_to_install(path: Path) -> None:
    for block in blocks_of(path.read_text(encoding="utf-8")):
        assert block.language in LANGUAGES
        if block.language == "sh":
            _check_setup(block)


def _check_setup(block: Block) -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in block.content.splitlines():
        match = _SETUP_LINE.fullmatch(line.split("  #")[0].rstrip())
        assert match is not None, f"{line!r} should be run: make it a console block"
        if match["extra"]:
            extras = project["project"]["optional-dependencies"]
            assert set(match["extra"].split(",")) <= set(extras)
        if match["target"]:
            assert re.search(rf"^{match['target']}:", makefile, re.MULTILINE)
        if match["script"]:
            assert (ROOT / match["script"]).exists()


def test_first_screen_of_the_readme_fits_on_a_screen() -> None:
    screen = _first_screen((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(screen) <= MAX_FIRST_SCREEN_LINES


def test_first_screen_of_the_readme_shows_code_output_and_a_transcript() -> None:
    screen = "\n".join(_first_screen((ROOT / "README.md").read_text(encoding="utf-8")))
    assert [block.language for block in blocks_of(screen)] == ["python", "text", "console"]
    assert "pip install agentmem-store" in screen


def test_first_screen_ends_at_the_marker_or_the_second_heading() -> None:
    assert _first_screen("# a\n## b\ntext\n## c\nmore") == ["# a", "## b", "text"]
    assert _first_screen(f"# a\n{FIRST_SCREEN_ENDS}\n## b") == ["# a"]
