"""Exact values of softmax, log_softmax and logsumexp, from the very numbers that were handed over.

x86's 80-bit ``longdouble`` where NumPy has it, or a wider one. Elsewhere float64 serves the narrower dtypes,
and float64 itself is judged by decimal arithmetic of 40 digits. An exact value travels as the sum of two
numbers.
"""

import math
from decimal import Context, Decimal
from typing import Any

import numpy as np

__all__ = ["BLOCK", "DECIMAL_VALUES", "Arithmetic", "Decimals", "reference_for"]

Array = np.ndarray[Any, Any]
# Elements that are worked on at a time: their longdoubles fill 16 MB.
BLOCK = 2**20
# Decimal arithmetic takes microseconds an element; longer lanes are summed exactly from float64 exponentials.
DECIMAL_VALUES = 2**13


class Arithmetic:
    """Reference arithmetic in one of NumPy's floating types."""

    def __init__(self, dtype: Any, name: str) -> None:
        self.dtype, self.name = np.dtype(dtype), name

    def _shifted(self, x: Array, largest: Any) -> tuple[Array, Array]:
        """x - largest without rounding, as the sum of two numbers (Knuth's two-sum)."""
        x = x.astype(self.dtype)
        high = x - largest
        back = high - x
        low = (x - (high - back)) - (largest + back)
        return high, np.where(np.isfinite(low), low, 0)

    def exponential_sum(self, lane: Array, largest: Any) -> Any:
        total = self.dtype.type(0)
        for start in range(0, lane.size, BLOCK):
            high, low = self._shifted(lane[start : start + BLOCK], largest)
            total += (np.exp(high) * (1 + low)).sum()
        return total

    def sums(self, lanes: Array) -> tuple[Array, Array]:
        largest = lanes.max(axis=1).astype(self.dtype)
        if lanes.shape[1] > BLOCK:
            totals = [self.exponential_sum(lane, m) for lane, m in zip(lanes, largest, strict=True)]
            return largest, np.array(totals, self.dtype)
        high, low = self._shifted(lanes, largest[:, None])
        return largest, (np.exp(high) * (1 + low)).sum(axis=1)

    def values(self, op: str, x: Array, largest: Array, total: Array) -> tuple[Array, Array]:
        """The exact results at ``x`` (lanes, places) as the sum of two numbers; (lanes, 1) for logsumexp."""
        if op == "logsumexp":
            result = np.where(np.isinf(largest), largest, largest + np.log(total))[:, None]
            return result, np.zeros_like(result)
        high, low = self._shifted(x, largest[:, None])
        if op == "softmax":
            high = np.exp(high) * (1 + low) / total[:, None]
            return high, np.zeros_like(high)
        return high - np.log(total)[:, None], low


class Decimals(Arithmetic):
    """float64 pairs from 40-digit decimal arithmetic, for platforms whose ``longdouble`` is float64."""

    def __init__(self) -> None:
        super().__init__(np.float64, "40-digit decimals")
        self._context = Context(prec=40, Emin=-9999, Emax=9999)

    def sums(self, lanes: Array) -> tuple[Array, Array]:
        largest = lanes.max(axis=1).astype(np.float64)
        totals = np.empty(len(lanes), dtype=object)
        for i, (lane, m) in enumerate(zip(lanes, largest, strict=True)):
            if not math.isfinite(m):
                totals[i] = Decimal("nan")
            elif lane.size <= DECIMAL_VALUES:
                terms = (self._exp(float(v), float(m)) for v in lane)
                totals[i] = sum(terms, Decimal(0))
            else:
                high, low = self._shifted(lane, m)
                totals[i] = Decimal(math.fsum(np.exp(high) * (1 + low)))
        return largest, totals

    def _exp(self, x: float, largest: float) -> Decimal:
        if x == -math.inf:
            return Decimal(0)
        return self._context.exp(self._context.subtract(Decimal(x), Decimal(largest)))

    def _one(self, op: str, x: float, largest: float, total: Decimal) -> Decimal | float:
        if op == "logsumexp":
            if not math.isfinite(largest):
                return largest
            return self._context.add(Decimal(largest), self._context.ln(total))
        if total.is_nan() or math.isnan(x):
            return math.nan
        if op == "softmax":
            return self._context.divide(self._exp(x, largest), total)
        if x == -math.inf:
            return x
        difference = self._context.subtract(Decimal(x), Decimal(largest))
        return self._context.subtract(difference, self._context.ln(total))

    def values(self, op: str, x: Array, largest: Array, total: Array) -> tuple[Array, Array]:
        if op == "logsumexp":
            pairs = [self._one(op, 0.0, float(m), t) for m, t in zip(largest, total, strict=True)]
            shape = (len(largest), 1)
        else:
            rows = zip(x, largest, total, strict=True)
            pairs = [self._one(op, float(v), float(m), t) for row, m, t in rows for v in row]
            shape = x.shape
        high = np.array([float(v) for v in pairs])
        exact = ((v, h) for v, h in zip(pairs, high, strict=True))
        low = [float(v - Decimal(h)) if isinstance(v, Decimal) and math.isfinite(h) else 0.0 for v, h in exact]
        return high.reshape(shape), np.array(low).reshape(shape)


def reference_for(dtype: str) -> Arithmetic:
    """The arithmetic that results of ``dtype`` are judged by on this platform."""
    bits = np.finfo(np.longdouble).nmant + 1
    if bits >= 64:
        return Arithmetic(np.longdouble, f"longdouble, {bits}-bit significand")
    if dtype == "float64":
        return Decimals()
    return Arithmetic(np.float64, "float64")
