"""Public names of a package that are imported when they are first asked for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from agentmem import MissingExtraError

__all__ = ["imported"]


def imported(package: str, modules: Mapping[str, str], extras: Mapping[str, str], name: str) -> Any:
    """What a public name of a package stands for, imported and kept there.

    Args:
        package: its ``__name__``.
        modules: the module of each public name.
        extras: which extra brings a foreign package that may be missing.

    Raises:
        AttributeError: there is no such name.
        MissingExtraError: what its module needs is not installed.
    """
    module = modules.get(name)
    if module is None:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    try:
        found = getattr(import_module(f"{package}.{module}"), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        extra = extras.get(missing)
        if extra is None:
            raise
        raise MissingExtraError(
            f"{name} needs {missing}: pip install 'agentmem-store[{extra}]'", extra=extra
        ) from error
    setattr(sys.modules[package], name, found)
    return found
