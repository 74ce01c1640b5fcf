"""Softmax in three pictures, computed as they are drawn: what it does, what temperature does, why it is shifted."""

from functools import cache

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from softmax_numba import softmax
from softmax_numba.report.drawing import GRID, INK, QUESTIONS, STYLE, Picture, saved
from softmax_numba.report.words import digits_text

__all__ = ["draw", "naive"]

_COMMAND = "softmax-numba report"
_LOGITS = np.array([2.0, 1.0, 0.2, -1.0, 3.0], np.float32)
_BLUE, _ORANGE = "#0072B2", "#E69F00"


def naive(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The formula as it stands in the textbook, without the shift.

    Examples
    --------
    >>> naive(np.array([1000.0, 999.0], np.float32))
    array([nan, nan], dtype=float32)
    """
    with np.errstate(all="ignore"):
        powers = np.exp(x)
        return powers / powers.sum()


def _bars(axes: Axes, values: NDArray[np.float32], title: str, colour: str = _BLUE) -> None:
    shown = np.nan_to_num(values, nan=0.0, posinf=0.0)
    axes.bar(range(len(values)), shown, color=colour, edgecolor=INK, linewidth=0.6)
    for place, (value, height) in enumerate(zip(values, shown, strict=True)):
        text = str(value) if not np.isfinite(value) else digits_text(value, 2) if abs(value) > 1e-3 else "< 0.001"
        above = height >= 0
        axes.annotate(
            text,
            (place, height),
            (0, 3 if above else -3),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            fontsize=8.5,
        )
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xticks(range(len(values)), [f"x{chr(0x2080 + i)}" for i in range(len(values))])
    axes.margins(y=0.16)
    axes.axhline(0, color=INK, linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _figure(panels: int, name: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(3.4 * panels + 0.4, 3.6), layout="constrained")
    figure.suptitle(QUESTIONS[name], x=0.01, ha="left", fontsize=13, fontweight="bold")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _picture(figure: Figure, name: str, caption: str) -> Picture:
    return Picture(name, caption, saved(figure, "svg"), saved(figure, "png"), _COMMAND)


def _steps() -> Picture:
    figure, axes = _figure(3, "explained-steps")
    powers = np.exp(_LOGITS - _LOGITS.max())
    _bars(axes[0], _LOGITS, "scores (logits): any numbers")
    _bars(axes[1], powers, "exponentiate: positive, order kept")
    _bars(axes[2], softmax(_LOGITS), "divide by the sum: shares of 1")
    caption = (
        "Five scores become five probabilities: each is exponentiated, which makes it positive and turns differences "
        "into "
        f"ratios; all are divided by their sum; the shares are read off. They sum to {softmax(_LOGITS).sum():g}."
    )
    return _picture(figure, "explained-steps", caption)


def _temperature() -> Picture:
    figure, axes = _figure(4, "explained-temperature")
    for panel, heat in zip(axes, (0.25, 1.0, 4.0, 100.0), strict=True):
        _bars(panel, softmax(_LOGITS / np.float32(heat)), f"temperature {heat:g}")
        panel.set_ylim(0, 1.12)
        panel.grid(axis="y", color=GRID, linewidth=0.6)
        panel.set_axisbelow(True)
    caption = (
        "The same five scores divided by a temperature first: the colder, the more the largest takes all; the "
        "hotter, the "
        "more alike they become. The order never changes."
    )
    return _picture(figure, "explained-temperature", caption)


def _shift() -> Picture:
    figure, axes = _figure(4, "explained-shift")
    for i, level in enumerate((100.0, 1000.0)):
        x = _LOGITS + np.float32(level)
        _bars(axes[2 * i], naive(x), f"exp(x) / sum(exp(x)), scores near {level:,.0f}", _ORANGE)
        _bars(axes[2 * i + 1], softmax(x), f"softmax, scores near {level:,.0f}")
        axes[2 * i].set_facecolor("#fbe9e1")
    for panel in axes:
        panel.set_ylim(0, 1.12)
        panel.title.set_fontsize(8.5)
    with np.errstate(over="ignore"):
        largest = float(np.exp(np.float32(1003.0)))
        limit = np.log(np.finfo(np.float32).max)
    caption = (
        "The same five scores, 100 and 1,000 higher, in float32: adding a constant changes no share. The formula "
        "taken by "
        f"its word needs exp(1003) = {largest}, beyond what float32 holds (from exp({limit:.1f}) on), and "
        f"{largest}/{largest} "
        "is nan. Subtracting the maximum first leaves the largest power at 1. These numbers were computed when this "
        "page "
        "was written."
    )
    return _picture(figure, "explained-shift", caption)


@cache
def draw() -> tuple[Picture, ...]:
    """The three pictures, the same for all reports of a process."""
    with matplotlib.rc_context(STYLE):
        return _steps(), _temperature(), _shift()
