"""What all pictures share: colours, markers, logarithmic axes, legends, and the files that come out.

Colours are Okabe and Ito's, which colour-blind readers can tell apart, and every library has a shape of its own
besides.
"""

import io
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from softmax_numba.bench.results import ContenderInfo, Results

__all__ = [
    "GRID",
    "INK",
    "LIMIT",
    "QUESTIONS",
    "STYLE",
    "Picture",
    "finished",
    "handle_of",
    "log_axis",
    "name_of",
    "plain_numbers",
    "provenance",
    "saved",
    "styles_of",
]

_OURS = ("#0072B2", "o")
# A library looks the same in every picture.
_PEERS = {
    "numpy": ("#E69F00", "s"),
    "scipy": ("#009E73", "^"),
    "torch": ("#D55E00", "D"),
    "jax": ("#CC79A7", "v"),
    "onnxruntime": ("#56B4E9", "P"),
    "scikit-learn": ("#F0E442", "X"),
    "numexpr": ("#999999", "h"),
}
INK, GRID, LIMIT = "#1a1a1a", "#d9d9d9", "#8c8c8c"
# The question of each picture; the most important first.
QUESTIONS = {
    "speed": "How many times as fast as each library?",
    "map": "Where is it faster, and where slower?",
    "throughput": "How fast, the longer a lane, and what does memory allow?",
    "bandwidth": "How close to what memory allows?",
    "accuracy": "How far from the exact result?",
    "tradeoff": "Is speed bought with accuracy?",
    "latency": "What does one small call cost?",
    "threads": "What do more threads gain, the longer the lane?",
    "growth": "What does a value cost, the longer its lane?",
    "precision": "What does precision cost?",
    "memory": "How much memory does a call take besides its result?",
    "start": "How long until the first result?",
    "explained-steps": "What does softmax do?",
    "explained-temperature": "What does temperature do?",
    "explained-shift": "Why is the maximum subtracted first?",
}
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    # The same results give the same file.
    "svg.hashsalt": "softmax-numba",
    "svg.fonttype": "path",
}


@dataclass(frozen=True)
class Picture:
    """One picture in both formats.

    Attributes
    ----------
    name : str
        The file's name without its ending.
    caption : str
        How to read it.
    svg, png : bytes
    command : str
        What measures what it shows.
    finding : str
        What it shows on this machine, in a sentence, if one says it.
    """

    name: str
    caption: str
    svg: bytes
    png: bytes
    command: str
    finding: str = ""

    @property
    def title(self) -> str:
        """The question that it answers."""
        return QUESTIONS[self.name]


def log_axis(axes: Axes, unit: str, least: tuple[float, float], room: float = 0.0) -> None:
    """A logarithmic axis that shows at least this range, labelled with plain numbers.

    ``room`` is the share of its width that is added on the left.
    """
    if axes.get_xscale() == "log":  # the axis is shared, and an earlier panel has set it
        return
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    low, high = min(low, least[0]), max(high, least[1])
    low *= (low / high) ** room
    axes.set_xlim(low, high)
    # Within two decades there is room for 2 and 5; beyond, powers of ten do.
    subs = (1.0, 2.0, 5.0) if high / low < 50 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12 if len(subs) > 1 else 5))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(plain_numbers(unit))


def styles_of(results: Results) -> dict[str, tuple[str, str]]:
    """Each contender's colour and marker; a library that has none of its own gets one that nobody else here has."""
    ours, *peers = (contender.name for contender in results.contenders)
    free = cycle([style for name, style in _PEERS.items() if name not in peers] or _PEERS.values())
    return {ours: _OURS} | {name: _PEERS.get(name) or next(free) for name in peers}


def name_of(contender: ContenderInfo) -> str:
    """A library and its version."""
    return f"{contender.title} {contender.version or ''}".strip()


def plain_numbers(unit: str = "") -> FuncFormatter:
    """Numbers without exponents, as axes write them."""
    return FuncFormatter(lambda value, _: f"{value:,.10g}{unit}")


def handle_of(contender: ContenderInfo, colour: str, shape: str) -> Line2D:
    return Line2D(
        [],
        [],
        marker=shape,
        color=colour,
        markeredgecolor=INK,
        markeredgewidth=0.6,
        linewidth=1.6,
        label=name_of(contender),
    )


def provenance(results: Results) -> str:
    machine = results.machine
    state = "" if results.state == "complete" else f" · {results.state}"
    return f"{machine.cpu} · {results.threads} threads · {results.started[:10]} · {results.mode}{state}"


def saved(figure: Figure, kind: str) -> bytes:
    file = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
    figure.savefig(file, format=kind, dpi=150, metadata=metadata)
    return file.getvalue()


def finished(figure: Figure, name: str, caption: str, results: Results) -> Picture:
    """A picture of several axes, with its question above and where the figures are from below."""
    width, height = figure.get_size_inches()
    figure.text(0.15 / width, 1 - 0.28 / height, QUESTIONS[name], fontsize=13, fontweight="bold", va="center")
    figure.text(0.15 / width, 0.16 / height, provenance(results), fontsize=7.5, color="#595959", va="center")
    return Picture(name, caption, saved(figure, "svg"), saved(figure, "png"), results.command)
