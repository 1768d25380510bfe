"""Tells whether the environment that runs this has all that ``make setup`` puts into it.

Looks at what a broken environment looks like in practice: a requirement is missing or too old,
files of an installed package are gone, or the environment or the checkout was moved. Prints what
is wrong and exits 1. Takes about a tenth of a second, as every make target runs it first.
"""

import csv
import importlib.util
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = (
    "agents",
    "chroma",
    "classic",
    "langchain",
    "langgraph",
    "local",
    "postgres",
    "text",
    "testing",
)
GROUPS = ("dev",)


def requirements() -> list[str]:
    """The requirements of the project, of its extras and of its groups that set-up installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = [*project["project"]["dependencies"]]
    for extra in EXTRAS:
        found += project["project"]["optional-dependencies"][extra]
    for group in GROUPS:
        found += project["dependency-groups"][group]
    return found


def faults_of_requirement(line: str) -> Iterator[str]:
    """What is wrong with one requirement here."""
    from packaging.requirements import Requirement

    requirement = Requirement(line)
    if requirement.marker and not requirement.marker.evaluate():
        return
    try:
        found = distribution(requirement.name)
    except PackageNotFoundError:
        yield f"{requirement.name} is not installed"
        return
    if not requirement.specifier.contains(found.version, prereleases=True):
        yield f"{requirement.name} {found.version} is not {requirement.specifier}"
    # Not `found.files`: from Python 3.12 on it leaves out what is missing.
    record = csv.reader((found.read_text("RECORD") or "").splitlines())
    files = [row[0] for row in record if row and not row[0].endswith(".pyc")]
    gone = [file for file in files if not Path(str(found.locate_file(file))).exists()]
    if gone:
        yield f"{requirement.name} lacks {len(gone)} of its files, {gone[0]} among them"


def faults_of_place() -> Iterator[str]:
    """What shows that the environment or the checkout was moved after set-up."""
    spec = importlib.util.find_spec("agentmem")
    if spec is None or spec.origin is None or ROOT not in Path(spec.origin).resolve().parents:
        yield f"agentmem is not installed from {ROOT}"
    script = Path(sys.prefix, "bin", "agentmem")
    if not script.is_file():
        yield f"{script} is missing"
    elif sys.prefix not in script.read_text(encoding="utf-8"):
        yield f"{script} starts another environment"


def main() -> int:
    try:
        faults = [fault for line in requirements() for fault in faults_of_requirement(line)]
    except ImportError as error:
        faults = [str(error)]
    faults += faults_of_place()
    for fault in dict.fromkeys(faults):
        print(f"environment: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
