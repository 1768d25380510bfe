"""The wheel holds what it should, and importing it is light. ``make wheel`` goes further."""

import sys
from pathlib import Path

import pytest

from tests.packaging.check_wheel import (
    build_wheel,
    names_in,
    optional_imports,
    pinned_top_level,
    sql_files,
    sql_files_in_tree,
    top_level,
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_wheel_has_exactly_the_pinned_top_level_names(wheel: Path) -> None:
    assert top_level(wheel) == pinned_top_level()


def test_wheel_has_every_migration(wheel: Path) -> None:
    assert sql_files(wheel) == sql_files_in_tree()
    assert "agentmem_migrations/sqlite/" in " ".join(sql_files(wheel))


def test_wheel_is_marked_as_typed(wheel: Path) -> None:
    assert "agentmem/py.typed" in names_in(wheel)


def test_import_of_agentmem_imports_no_optional_package(tmp_path: Path) -> None:
    assert optional_imports(sys.executable, tmp_path) == []
