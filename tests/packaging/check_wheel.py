"""Builds the wheel, installs it into a clean environment, and uses it there.

Run by ``make wheel``. The parts that need no network are run by ``test_wheel.py`` as well.
"""

import os
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MIGRATIONS = ROOT / "migrations"

# What `import agentmem` must not import: the extras, which may be absent, and the test tools.
OPTIONAL_PACKAGES = (
    "chromadb",
    "hypothesis",
    "langchain_core",
    "langgraph",
    "mcp",
    "merge3",
    "networkx",
    "psycopg",
    "pytest",
    "simsimd",
    "wordllama",
)

LIST_OPTIONAL_IMPORTS = f"""
import sys
import agentmem
print(*sorted(set({OPTIONAL_PACKAGES!r}) & set(sys.modules)))
"""

USE = """
import sys
import agentmem

store = agentmem.open(sys.argv[1])
assert store.put("plan", {"days": 3}).version == 1
with store.transaction(agent="planner") as tx:
    tx["plan"] = {**tx["plan"], "days": tx["plan"]["days"] + 1}
store.close()

store = agentmem.open(sys.argv[1])
entry = store.get("plan")
assert (entry.version, entry.value, entry.agent) == (2, {"days": 4}, "planner"), entry
assert store.get("absent") is None
store.close()
"""


class CheckError(Exception):
    """The wheel is not what it should be."""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Runs a program without what the caller's shell adds to Python's path; returns its output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        shown = " ".join(str(part) for part in command)
        raise CheckError(f"{shown}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def build_wheel(folder: Path) -> Path:
    """Builds the wheel with the hatchling of this environment; returns its path."""
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def pinned_top_level() -> set[str]:
    """The only names that installing the wheel may put into site-packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    version = project["project"]["version"]
    return {
        "agentmem",
        "agentmem_migrations",
        "langchain_agentmem",
        "langgraph_agentmem",
        f"agentmem_store-{version}.dist-info",
    }


def names_in(wheel: Path) -> list[str]:
    """The paths of all files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def top_level(wheel: Path) -> set[str]:
    """The first parts of the paths in the wheel."""
    return {name.split("/")[0] for name in names_in(wheel)}


def sql_files(wheel: Path) -> set[str]:
    """The migrations in the wheel, as paths in it."""
    return {name for name in names_in(wheel) if name.endswith(".sql")}


def sql_files_in_tree() -> set[str]:
    """The migrations in the checkout, as paths that the wheel should have."""
    return {path.relative_to(MIGRATIONS).as_posix() for path in MIGRATIONS.rglob("*.sql")}


def optional_imports(python: str | Path, cwd: Path) -> list[str]:
    """The optional packages that ``import agentmem`` imports under that interpreter."""
    return run(python, "-I", "-c", LIST_OPTIONAL_IMPORTS, cwd=cwd).split()


def check_contents(wheel: Path) -> None:
    """The wheel holds its packages, every migration and the mark that it is typed."""
    if top_level(wheel) != pinned_top_level():
        raise CheckError(f"top level is {sorted(top_level(wheel))}, not {pinned_top_level()}")
    if not sql_files(wheel) or sql_files(wheel) != sql_files_in_tree():
        raise CheckError(f"migrations are {sql_files(wheel)}, not {sql_files_in_tree()}")
    if "agentmem/py.typed" not in names_in(wheel):
        raise CheckError("agentmem/py.typed is not in the wheel")


def check_installed(wheel: Path, folder: Path) -> None:
    """The wheel and its core dependencies alone are enough to import it, run it and use it."""
    run(sys.executable, "-m", "venv", folder / "venv")
    programs = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    python = programs / "python"
    run(python, "-m", "pip", "--disable-pip-version-check", "install", wheel, cwd=folder)
    print("installed in a clean environment")

    # Twice: here nothing optional is installed, so an import of it fails; in the environment of
    # this program much of it is, so an import that is allowed to fail shows.
    for interpreter in (python, sys.executable):
        imported = optional_imports(interpreter, folder)
        if imported:
            raise CheckError(f"import agentmem imports {imported}")
    print("imports, and none of the optional packages with it")

    if "Usage" not in run(programs / "agentmem", "--help", cwd=folder):
        raise CheckError("agentmem --help shows no usage")
    print("agentmem --help runs")

    run(python, "-I", "-c", USE, folder / "try.db", cwd=folder)
    print("a store is written, reopened and read")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="agentmem-wheel-") as name:
        folder = Path(name)
        try:
            wheel = build_wheel(folder)
            print(f"built {wheel.name}")
            check_contents(wheel)
            print(f"holds {len(sql_files(wheel))} migrations, and nothing beside its packages")
            check_installed(wheel, folder)
        except CheckError as error:
            print(f"the wheel is wrong: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
