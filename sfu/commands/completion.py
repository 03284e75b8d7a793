"""`sfu completion SHELL`: prints what makes a shell complete commands, options, rooms and people.

The printed script calls `sfu completion words`, which finds the words from the parser of the command line, so that they
are always those of the installed version. Rooms and people come from the running server.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Sequence

from sfu.errors import SfuError
from sfu.operator.control import ask
from sfu.settings.config import Config

NAME, HELP = "completion", "print the completion of a shell"
DESCRIPTION = (
    "Prints the completion for a shell. In ~/.bashrc: `source <(sfu completion bash)`. In ~/.zshrc, after compinit: "
    "`source <(sfu completion zsh)`. For fish: `sfu completion fish > ~/.config/fish/completions/sfu.fish`."
)
WORDS = "words"

_CALL = "completion words --"
_RETRY = "--env-file /dev/null completion words --"  # if this user may not read the settings, without rooms
SCRIPTS = {
    "bash": f"""\
_sfu() {{
    local found words=("${{COMP_WORDS[@]:1:COMP_CWORD}}")
    found=$("${{COMP_WORDS[0]}}" {_CALL} "${{words[@]}}" 2>/dev/null) ||
        found=$("${{COMP_WORDS[0]}}" {_RETRY} "${{words[@]}}" 2>/dev/null)
    COMPREPLY=()
    [ -n "$found" ] || return
    mapfile -t COMPREPLY <<< "$found"
    mapfile -t COMPREPLY < <(printf '%q\\n' "${{COMPREPLY[@]}}")
}}
complete -o default -F _sfu sfu
""",
    "zsh": f"""\
#compdef sfu
_sfu() {{
    local text
    local -a found
    text=$(${{(Q)words[1]}} {_CALL} "${{(@Q)words[2,CURRENT]}}" 2>/dev/null) ||
        text=$(${{(Q)words[1]}} {_RETRY} "${{(@Q)words[2,CURRENT]}}" 2>/dev/null)
    found=("${{(@f)text}}")
    if [[ -n $text ]]; then compadd -a found; else _files; fi
}}
compdef _sfu sfu
""",
    "fish": f"""\
function __sfu_words
    set -l words (commandline -opc) (commandline -ct)
    $words[1] {_CALL} $words[2..-1] 2>/dev/null
    or $words[1] {_RETRY} $words[2..-1] 2>/dev/null
end
complete -c sfu -f -a '(__sfu_words)'
complete -c sfu -l env-file -r -F
""",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `sfu completion`."""
    parser.add_argument("shell", choices=(*SCRIPTS, WORDS), metavar="SHELL", help=", ".join(SCRIPTS))
    parser.add_argument("line", nargs="*", help=argparse.SUPPRESS)


async def run(config: Config, options: argparse.Namespace) -> None:
    """Prints the script; with `words`, the words that may stand in place of the last one of the line, one per line."""
    if options.shell != WORDS:
        print(SCRIPTS[options.shell], end="")
        return
    *before, last = options.line or [""]
    last = last.lstrip("'\"").replace("\\", "")  # as it is typed, perhaps with an open quote
    for word in await _words(config, options.parser, before, last):
        if word.startswith(last):
            print(word)


async def _words(config: Config, parser: argparse.ArgumentParser, before: Sequence[str], last: str) -> Iterable[str]:
    """The words that may follow `before`."""
    given: list[str] = []  # the positional arguments of the last command
    value_of: argparse.Action | None = None
    for word in before:
        options = parser._option_string_actions
        commands = _commands(parser)
        if value_of is not None:
            value_of = None
        elif word.startswith("-"):
            action = options.get(word)
            value_of = action if action is not None and action.nargs != 0 else None
        elif word in commands:
            parser, given = commands[word], []
        else:
            given.append(word)
    if value_of is not None:
        return map(str, value_of.choices or ())
    if last.startswith("-"):
        return [name for name, action in parser._option_string_actions.items() if action.help != argparse.SUPPRESS]
    if commands := _commands(parser):
        return () if given else commands
    places = [action for action in parser._actions if not action.option_strings]
    if len(given) >= len(places):
        return ()
    place = places[len(given)]
    return map(str, place.choices) if place.choices else await _running(config, place, given)


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


async def _running(config: Config, place: argparse.Action, given: Sequence[str]) -> Sequence[str]:
    """What the running server has in this place: rooms, or the people in the room before it. Nothing without one."""
    with contextlib.suppress(SfuError):
        if place.metavar == "ROOM":
            return [room["room"] for room in await ask(config, "rooms")]
        if place.metavar == "PERSON":
            room = await ask(config, "participants", room=given[0])
            return sorted({person["name"] for person in (*room["people"], *room["lobby_people"])})
    return ()
