"""Completion of commands and options in bash, zsh and fish.

The scripts hold all words themselves, so that a Tab starts no Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, NamedTuple

import typer
from typer.core import TyperCommand

from agentmem.cli.call import Shared, combined
from agentmem.cli.failures import CommandError, ExitCode
from agentmem.cli.options import JsonOption
from agentmem.cli.output import Output

__all__ = ["register"]


class _Word(NamedTuple):
    name: str
    help: str


class _Options(NamedTuple):
    words: list[_Word]
    with_value: list[str]


class _Tree(NamedTuple):
    """What can be typed: options of the program, and of each command; the way to it by words."""

    shared: _Options
    commands: dict[tuple[str, ...], _Options]
    helps: dict[tuple[str, ...], str]

    def below(self, path: tuple[str, ...]) -> list[_Word]:
        """The commands behind these words."""
        return [
            _Word(each[-1], help) for each, help in self.helps.items() if each[:-1] == path and each
        ]

    @property
    def with_value(self) -> list[str]:
        """The options that take a value, wherever they stand."""
        every = (self.shared, *self.commands.values())
        return sorted({name for options in every for name in options.with_value})


def register(app: typer.Typer) -> None:
    """Adds the command of this module."""
    app.command(
        "completions", cls=TyperCommand, epilog="Example: agentmem completions bash >> ~/.bashrc"
    )(_completions)


def _completions(
    ctx: typer.Context,
    shell: Annotated[
        str, typer.Argument(metavar="SHELL", help="bash, zsh or fish.", show_default=False)
    ],
    json: JsonOption = False,
) -> None:
    """Print what makes a shell complete commands and options.

    bash and zsh run it from ~/.bashrc or ~/.zshrc, fish from
    ~/.config/fish/completions/agentmem.fish.
    """
    write = _SHELLS.get(shell)
    if write is None:
        raise CommandError(ExitCode.USAGE, f"the shell is {', '.join(_SHELLS)}, not {shell}")
    root: Any = ctx.find_root().command
    commands: dict[tuple[str, ...], _Options] = {}
    helps: dict[tuple[str, ...], str] = {}
    for path, found in _walk(root):
        commands[path] = _options_of(found)
        helps[path] = _short(found.help)
    script = write(_Tree(_options_of(root), commands, helps))
    out = Output(json=combined(ctx, Shared(None, json)).json)
    if out.json:
        out.document({"shell": shell, "script": script})
    else:
        out.string(script)


def _walk(group: Any, *before: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, found in group.commands.items():
        if not found.hidden:
            yield (*before, name), found
            if hasattr(found, "commands"):
                yield from _walk(found, *before, name)


def _options_of(found: Any) -> _Options:
    words = [_Word("--help", "Explain it.")]
    with_value = []
    for param in found.params:
        if param.param_type_name == "option":
            words += [_Word(name, _short(param.help)) for name in param.opts]
            if not param.is_flag:
                with_value += param.opts
    return _Options(words, with_value)


def _short(text: str | None) -> str:
    return (text or "").split("\n\n")[0].replace("\n", " ").strip()


def _names(words: list[_Word]) -> str:
    return " ".join(word.name for word in words)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


_BASH: Final = """\
_agentmem() {
    local word="${COMP_WORDS[COMP_CWORD]}" path="" words="" index
    for ((index = 1; index < COMP_CWORD; index++)); do
        case "${COMP_WORDS[index]}" in
            @values@) ((index++)) ;;
            -*) ;;
            *) case "$path ${COMP_WORDS[index]}" in
                @paths@) path="$path ${COMP_WORDS[index]}" ;;
            esac ;;
        esac
    done
    case "$path" in
@cases@
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o default -F _agentmem agentmem
"""


def _bash(tree: _Tree) -> str:
    cases = [f'        "") words="{_names(tree.below(()))} {_names(tree.shared.words)}" ;;']
    for path, options in tree.commands.items():
        words = _names(tree.below(path) or options.words)
        cases.append(f'        " {" ".join(path)}") words="{words}" ;;')
    return (
        _BASH.replace("@values@", "|".join(tree.with_value))
        .replace("@paths@", "|".join(f'" {" ".join(path)}"' for path in tree.commands))
        .replace("@cases@", "\n".join(cases))
    )


_ZSH: Final = """\
#compdef agentmem
_agentmem() {
    local found="" index
    local -a choices
    for ((index = 2; index < CURRENT; index++)); do
        case "${words[index]}" in
            (@values@) ((index++)) ;;
            (-*) ;;
            (*) case "$found ${words[index]}" in
                (@paths@) found="$found ${words[index]}" ;;
            esac ;;
        esac
    done
    case "$found" in
@cases@
    esac
    _describe 'agentmem' choices || _files
}
compdef _agentmem agentmem
"""


def _zsh(tree: _Tree) -> str:
    def choices(words: list[_Word]) -> str:
        return " ".join(
            _quoted(f"{word.name}:{word.help.replace(':', chr(92) + ':')}") for word in words
        )

    cases = [f'        ("") choices=({choices(tree.below(()))} {choices(tree.shared.words)}) ;;']
    for path, options in tree.commands.items():
        words = tree.below(path) or options.words
        cases.append(f'        (" {" ".join(path)}") choices=({choices(words)}) ;;')
    return (
        _ZSH.replace("@values@", "|".join(tree.with_value))
        .replace("@paths@", "|".join(f'" {" ".join(path)}"' for path in tree.commands))
        .replace("@cases@", "\n".join(cases))
    )


def _fish(tree: _Tree) -> str:
    places: list[tuple[str, list[_Word], _Options]] = [
        ("__fish_use_subcommand", tree.below(()), tree.shared)
    ]
    for path, options in tree.commands.items():
        seen = "; and ".join(f"__fish_seen_subcommand_from {name}" for name in path)
        places.append((seen, tree.below(path), options))
    lines = []
    for condition, commands, options in places:
        start = f"complete -c agentmem -n {_quoted(condition)}"
        lines += [f"{start} -f -a {word.name} -d {_quoted(word.help)}" for word in commands]
        for word in options.words:
            dashes = "-l" if word.name.startswith("--") else "-s"
            value = " -r" if word.name in options.with_value else ""
            name = word.name.lstrip("-")
            lines.append(f"{start} {dashes} {name}{value} -d {_quoted(word.help)}")
    return "\n".join(lines) + "\n"


_SHELLS: Final[dict[str, Callable[[_Tree], str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
