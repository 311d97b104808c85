"""Tables that fit where they are shown: a narrow terminal costs whole columns, never a digit of a number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

_GAP = 2
# What a column of words keeps at least while another could still be left out. One in the middle ends with an ellipsis
# then; the last one is folded, so it needs room for some words on a line.
_MIDDLE_WIDTH = 16
_LAST_WIDTH = 24
_FIRST_WIDTH = 8  # once nothing is left to be left out; it is folded too

Cell = str | Text


@dataclass(frozen=True, slots=True)
class Column:
    """A column with its cells, and how wide it would like to be."""

    title: str
    cells: tuple[Cell, ...]
    is_number: bool
    is_first: bool
    is_last: bool

    @property
    def width(self) -> int:
        """As wide as its title and every cell."""
        return max(cell_len(line) for each in (self.title, *self.cells) for line in str(each).splitlines() or [""])

    @property
    def least_width(self) -> int:
        """How narrow it may become while others are left out for it."""
        if self.is_number or self.is_first:
            return self.width
        return min(self.width, _LAST_WIDTH if self.is_last else _MIDDLE_WIDTH)


class Grid:
    """A table without lines; it looks at the room there is whenever it is drawn."""

    def __init__(self, columns: Sequence[Column], first_to_go: Sequence[str]) -> None:
        self._columns = tuple(columns)
        between = [each.title for each in columns if not (each.is_first or each.is_last)]
        self._to_go = [*first_to_go, *(title for title in reversed(between) if title not in first_to_go)]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        yield self._drawn(options.max_width)

    def _drawn(self, room: int) -> Table:
        columns = self._kept(room)
        grid = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
        for column, width in zip(columns, _widths(columns, room), strict=True):
            is_folded = column.is_first or column.is_last
            grid.add_column(
                column.title,
                justify="right" if column.is_number else "left",
                no_wrap=not is_folded,
                overflow="fold" if is_folded else "ellipsis",
                width=width,
            )
        for row in zip(*(each.cells for each in columns), strict=True):
            grid.add_row(*row)
        return grid

    def _kept(self, room: int) -> list[Column]:
        kept = list(self._columns)
        for title in self._to_go:
            if sum(each.least_width for each in kept) + _gaps(kept) <= room:
                break
            kept = [each for each in kept if each.title != title]
        return kept


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, right: Sequence[str] = (), first_to_go: Sequence[str]
) -> Grid:
    """Returns a table. Columns in `right` hold numbers; one that is empty in every row is left out.

    Where there is too little room, columns are left out in the order of `first_to_go`, then from the right; the first
    and the last stay.
    """
    filled = list(rows)
    last = len(columns) - 1
    whole = [
        Column(title, tuple(row[index] for row in filled), title in right, is_first=index == 0, is_last=index == last)
        for index, title in enumerate(columns)
    ]
    return Grid([each for each in whole if any(each.cells)], first_to_go)


def _widths(columns: Sequence[Column], room: int) -> list[int]:
    """Returns a width for each column. The last gives way first, then words in the middle, then the first."""
    widths = {each.title: each.width for each in columns}
    excess = sum(widths.values()) + _gaps(columns) - room
    words = sorted((each for each in columns if not each.is_number), key=lambda each: (each.is_first, not each.is_last))
    for each in words:
        least = min(each.width, _FIRST_WIDTH) if each.is_first else each.least_width
        given = max(0, min(excess, each.width - least))
        widths[each.title] -= given
        excess -= given
    return list(widths.values())


def _gaps(columns: Sequence[Column]) -> int:
    return _GAP * (len(columns) - 1)
