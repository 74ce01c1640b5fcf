"""Where is it faster, and where not? The ratio to the fastest library over length and number of lanes."""

import math
from collections.abc import Iterator
from statistics import geometric_mean

import matplotlib
import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from softmax_numba.bench.results import Cell, Results
from softmax_numba.bench.workloads import DTYPES, OPS
from softmax_numba.report.drawing import INK, STYLE, Picture, finished
from softmax_numba.report.words import digits_text

__all__ = ["boxes", "draw"]

# The lengths of a box lie within a factor of 8 around its middle, its numbers of lanes within one of 16.
_LENGTHS = tuple(2 ** (3 * i + 1) for i in range(9))
_BATCHES = tuple(16**i for i in range(6))
# Fewer boxes than this make no map.
_LEAST = 3
Key = tuple[str, str]
Box = tuple[int, int]


def _plain(results: Results, cell: Cell) -> bool:
    """Whether the cell's lanes are contiguous, whole and of one kind: what the map's two axes say all about."""
    if cell.op not in OPS or cell.axis % len(cell.shape) != len(cell.shape) - 1:
        return False
    title = results.workload(cell.workload).title
    return results.mode != "grid" or cell.kind == "growth" or title == " × ".join(map(str, cell.shape))


def _ratio(cell: Cell) -> float | None:
    """The fastest peer's time over ours."""
    found = [ratio.median for peer in cell.peers if (ratio := cell.speed_ratio(peer.name)) is not None]
    return min(found, default=None)


def _place(cell: Cell) -> Box:
    length = cell.shape[-1]
    batch = math.prod(cell.shape) // length
    column = min(max(round((math.log2(length) - 1) / 3), 0), len(_LENGTHS) - 1)
    return column, min(round(math.log2(batch) / 4), len(_BATCHES) - 1)


def boxes(*runs: Results | None) -> dict[Key, dict[Box, list[float]]]:
    """The ratios of all plain cells by op and dtype, and by (column, row) of the map."""
    found: dict[Key, dict[Box, list[float]]] = {}
    for results in filter(None, runs):
        for cell in results.cells:
            if _plain(results, cell) and (ratio := _ratio(cell)) is not None:
                found.setdefault((cell.op, cell.dtype), {}).setdefault(_place(cell), []).append(ratio)
    ordered = ((op, dtype) for dtype in DTYPES for op in OPS)
    return {key: found[key] for key in ordered if len(found.get(key, ())) >= _LEAST}


def _powers(values: tuple[int, ...]) -> Iterator[str]:
    return (f"{value:,}" if value < 10_000 else f"$2^{{{round(math.log2(value))}}}$" for value in values)


def draw(results: Results, grid: Results | None) -> Picture | None:
    """A panel an op and dtype, a box a range of lengths and numbers of lanes."""
    maps = boxes(grid, results)
    if not maps:
        return None
    caption = (
        "How many times as fast as the fastest library of each cell, over the length of a lane (rounded to a power "
        "of 8 "
        "times 2) and the number of lanes (to a power of 16): the geometric mean of the cells in a box. Blue: "
        "softmax-numba is faster; red: slower; white: level; empty: not measured. Rows in one block, as they lie in "
        "memory."
    )
    columns = min(3, len(maps))
    rows = -(-len(maps) // columns)
    width, height = 1.2 + 4.3 * columns, 1.5 + 3.0 * rows
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        figure.subplots_adjust(0.8 / width, 0.95 / height, 1 - 0.9 / width, 1 - 0.95 / height, 0.3, 0.45)
        norm = TwoSlopeNorm(0, -3, 3)
        colours = matplotlib.colormaps["RdBu"]
        for i, ((op, dtype), found) in enumerate(maps.items()):
            axes = figure.add_subplot(rows, columns, i + 1)
            values = np.full((len(_BATCHES), len(_LENGTHS)), np.nan)
            for (column, row), ratios in found.items():
                mean = geometric_mean(ratios)
                values[row, column] = shade = math.log2(mean)
                dark = abs(shade) > 1.9
                text = digits_text(mean, 2)
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else INK)
            edges = np.arange(len(_LENGTHS) + 1) - 0.5, np.arange(len(_BATCHES) + 1) - 0.5
            axes.pcolormesh(*edges, values, cmap=colours, norm=norm, edgecolors="white", linewidth=0.8)
            axes.set_xlim(-0.5, len(_LENGTHS) - 0.5)
            axes.set_ylim(-0.5, len(_BATCHES) - 0.5)
            axes.set_xticks(range(len(_LENGTHS)), list(_powers(_LENGTHS)), fontsize=8)
            axes.set_yticks(range(len(_BATCHES)), list(_powers(_BATCHES)), fontsize=8)
            axes.set_title(f"{op}, {dtype}", loc="left", fontsize=10.5)
            axes.set_xlabel("length of a lane")
            axes.set_ylabel("lanes" if i % columns == 0 else "")
            axes.set_facecolor("#f4f4f4")
        bar = figure.colorbar(
            matplotlib.cm.ScalarMappable(norm, colours),
            cax=figure.add_axes((1 - 0.7 / width, 0.95 / height, 0.14 / width, 1 - 1.9 / height)),
            extend="both",
        )
        bar.set_ticks([-3, -2, -1, 0, 1, 2, 3], labels=["⅛×", "¼×", "½×", "1×", "2×", "4×", "8×"])
        return finished(figure, "map", caption, grid or results)
