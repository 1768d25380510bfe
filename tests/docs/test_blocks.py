"""The runner of documents catches what it is there to catch."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import DocumentError, blocks_of, run, shape_of


def _run(text: str, tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text(text, encoding="utf-8")
    folder = tmp_path / "folder"
    folder.mkdir()
    run(document, folder)


def test_blocks_of_one_document_share_a_namespace_and_a_folder(tmp_path: Path) -> None:
    _run(
        "```python\nfrom pathlib import Path\nPath('x').write_text('hello')\nn = 2\n```\n"
        "```python\nprint(n + 1)\n```\n\n```text\n3\n```\n"
        "```console\n$ cat x\nhello\n```\n",
        tmp_path,
    )


def test_output_that_differs_from_the_document_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="line 2"):
        _run("```python\nprint(3)\n```\n```text\n4\n```\n", tmp_path)


def test_output_that_the_document_does_not_show_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(DocumentError):
        _run("```python\nprint(3)\n```\n", tmp_path)


def test_text_after_prose_is_a_picture_and_not_the_output(tmp_path: Path) -> None:
    with pytest.raises(DocumentError):
        _run("```python\nprint(3)\n```\nThe tree:\n```text\n3\n```\n", tmp_path)


def test_python_that_raises_names_the_line_of_the_document(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        _run("# Title\n\n```python\n1 / 0\n```\n", tmp_path)
    assert caught.traceback[-1].lineno == 4 - 1


def test_transcript_runs_in_a_shell_and_keeps_its_variables(tmp_path: Path) -> None:
    _run("```console\n$ NAME=Ann\n$ echo Hello \\\n  $NAME\nHello Ann\n```\n", tmp_path)


def test_transcript_that_differs_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="echo one"):
        _run("```console\n$ echo one\ntwo\n```\n", tmp_path)


def test_transcript_shows_standard_error_too(tmp_path: Path) -> None:
    with pytest.raises(DocumentError):
        _run("```console\n$ echo wrong >&2\n```\n", tmp_path)


def test_command_that_fails_must_show_its_exit_code(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="exits with 3"):
        _run("```console\n$ (exit 3)\n```\n", tmp_path)


def test_exit_code_that_is_shown_is_checked(tmp_path: Path) -> None:
    _run("```console\n$ (exit 3)\n$ echo $?\n3\n```\n", tmp_path)


def test_shell_that_ends_early_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="the shell ended"):
        _run("```console\n$ exit 0\n$ echo never\nnever\n```\n", tmp_path)


def test_unknown_language_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="pycon"):
        _run("```pycon\n>>> 1\n1\n```\n", tmp_path)


def test_fence_that_is_not_closed_is_refused() -> None:
    with pytest.raises(DocumentError, match="not closed"):
        blocks_of("```python\n1\n")


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23 19:24:38",
        "2026-11-23T19:24:38.441482+00:00",
        "2026-11-23 19:24 UTC",
        "77aeb5e7463d49ac987d6d7331506643",
    ],
)
def test_times_and_random_ids_are_compared_by_shape(text: str) -> None:
    assert shape_of(f"at {text}, version 2") in ("at <time>, version 2", "at <id>, version 2")


def test_versions_and_values_are_compared_exactly() -> None:
    assert shape_of("version 2: 41") != shape_of("version 2: 42")
