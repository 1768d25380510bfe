"""The command line: ``agentmem``, or ``python -m agentmem``.

`main` is all that is imported from here, and it imports the commands (and with them typer and
rich) only when it is called: who uses agentmem as a library pays nothing for them.
"""

from __future__ import annotations

import io
import sys
import traceback
from typing import Final

__all__ = ["main"]

_BUG: Final = 70
_INTERRUPTED: Final = 130


def main() -> None:
    """Runs the command of this process's arguments, and ends the process."""
    try:
        from agentmem.cli.app import app

        _print_whatever_comes()
        app(prog_name="agentmem")
    except KeyboardInterrupt:
        # Before or after the command itself, which tells of its own interruption.
        sys.exit(_INTERRUPTED)
    except Exception:  # noqa: BLE001  # a bug: shown whole, under a code of its own
        from agentmem.cli.targets import hide_passwords

        sys.stderr.write(hide_passwords(traceback.format_exc()))
        sys.exit(_BUG)


def _print_whatever_comes() -> None:
    # A terminal or a pipe may have an encoding that cannot spell every value; a backslash escape
    # is better than no output, and inside of JSON it mostly means the same.
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return
    if isinstance(sys.stdout.buffer, io.RawIOBase):
        # PYTHONUNBUFFERED: what a full disk or a closed pipe takes only a part of would be cut
        # off without an error.
        encoding = sys.stdout.encoding
        buffer = io.BufferedWriter(sys.stdout.detach())
        sys.stdout = io.TextIOWrapper(buffer, encoding, line_buffering=True)
    sys.stdout.reconfigure(errors="backslashreplace")
