"""Reads the words of a launch before click does: `-e` with or without a value, and settings only an engine knows."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches

import click

ENDPOINT = ("-e", "--endpoint")
ENGINE_ARGUMENT = "--engine-argument"  # NAME VALUE: what a flag that is not known becomes

_ADDRESS = re.compile(r"\w+://.*|\S*:\d+|localhost|\d+\.\d+\.\d+\.\d+")
_NUMBER = re.compile(r"-\d")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_ALIKE = 0.84  # as `--replicas` is to `--replica`, and `--max-num-seqs` of vLLM to none of ours
_BEGUN = 5  # characters of a flag that somebody has only begun to write


endpoint_option = click.option(
    *ENDPOINT, metavar="HOST:PORT", help="The control plane, as --address; a URL is good, too."
)


class PassingOn(click.Command):
    """A command whose unknown `--key value` is an engine's affair; `--key` alone, before a flag or last, is a switch.

    Underscores in names of flags are as good as hyphens.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Reads the words with flags that are known."""
        options = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        flags = {
            spelling: 0 if each.is_flag else each.nargs
            for each in options
            for spelling in (*each.opts, *each.secondary_opts)
        }
        above = () if ctx.parent is None else ctx.parent.command.params
        misplaced = {spelling for each in above for spelling in each.opts} - set(flags)
        return super().parse_args(ctx, to_known(args, flags, misplaced))


def to_known(words: Sequence[str], flags: Mapping[str, int], misplaced: Collection[str] = ()) -> list[str]:
    """Returns the same in flags that are known, each with its value where it has an optional one.

    flags: how many values follow each spelling. misplaced: flags that stand before the command. Raises
    click.UsageError for one that looks like a flag of ours written wrongly: no engine is to be asked about that.
    """
    left, known = deque(words), list[str]()
    while left:
        word = left.popleft()
        name, equals, value = word.partition("=")
        name = name.replace("_", "-") if name.startswith("--") else name
        if word == "--":
            known += [word, *left]
            break
        if name in ENDPOINT:
            known += _endpoint(value if equals else None, left)
        elif name in flags:
            known.append(name + equals + value)
            known += _taken(left, flags[name] - bool(equals))
        elif name.startswith("--"):
            _refuse_slip(name, flags, misplaced)
            known += (ENGINE_ARGUMENT, name[2:].replace("-", "_"), value if equals else _value(left))
        else:
            known.append(word)
    return known


def _endpoint(value: str | None, left: deque[str]) -> Iterator[str]:
    """Yields the flag with its value. Without one it says nothing: scripts write it so, and a model may follow."""
    if value is None and left and (not left[0] or _ADDRESS.fullmatch(left[0])):
        value = left.popleft()
    if value:
        yield f"{ENDPOINT[1]}={value}"


def _taken(left: deque[str], count: int) -> Iterator[str]:
    for _ in range(min(count, len(left))):
        yield left.popleft()


def _value(left: deque[str]) -> str:
    """Returns what stands behind a flag: nothing if that is a flag itself."""
    is_value = bool(left) and (not left[0].startswith("-") or _NUMBER.match(left[0]) is not None)
    return left.popleft() if is_value else ""


def _refuse_slip(name: str, flags: Mapping[str, int], misplaced: Collection[str]) -> None:
    if name in misplaced:
        raise click.UsageError(f"{name} stands before the command: give it right behind roundhouse")
    near = get_close_matches(name, [each for each in flags if each.startswith("--")], 1, _ALIKE)
    begun = [each for each in flags if each.startswith(name) and len(name) >= _BEGUN]
    setting = name[2:].replace("-", "_")
    if near or begun:
        meant = near[0] if near else begun[0]
        way = f"{ENGINE_ARGUMENT} {setting} VALUE passes it to the engine"
        raise click.UsageError(f"no such option {name}: did you mean {meant}? {way}")
    if not _NAME.fullmatch(setting):
        raise click.UsageError(f"no such option {name}")
