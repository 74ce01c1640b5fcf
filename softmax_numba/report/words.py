"""Words for numbers: the same number reads the same in the terminal, on the page and in summary.md."""

import math

__all__ = ["bytes_text", "digits_text", "ratio_text", "time_text", "ulp_text"]


def digits_text(value: float, digits: int = 3) -> str:
    """``value`` with so many significant digits, never in exponents.

    Examples
    --------
    >>> digits_text(0.012345), digits_text(1.5), digits_text(32863.4)
    ('0.0123', '1.50', '32,863')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}"


def time_text(seconds: float) -> str:
    """A time with its unit.

    Examples
    --------
    >>> time_text(0.00161), time_text(4.2e-7)
    ('1.61 ms', '420 ns')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{digits_text(seconds / size)} {unit}"
    return f"{digits_text(seconds * 1e9)} ns"


def ratio_text(ratio: float) -> str:
    """How many times as fast.

    Examples
    --------
    >>> ratio_text(1.374), ratio_text(12.31)
    ('1.37×', '12.3×')
    """
    return f"{digits_text(ratio)}×"


def ulp_text(ulp: float | None) -> str:
    if ulp is None:
        return "–"
    return f"{ulp:.1f}" if ulp < 99.95 else f"{ulp:,.0f}"


def bytes_text(count: float) -> str:
    """A size in binary units.

    Examples
    --------
    >>> bytes_text(32768), bytes_text(33554432)
    ('32 KiB', '32 MiB')
    """
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:g} bytes"
