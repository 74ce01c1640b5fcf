"""ONNX models of one operator, written without the onnx package: five kinds of message of its protocol buffer."""

from collections.abc import Sequence

__all__ = ["model"]

# Of TensorProto.DataType.
_TYPES = {"float32": 1, "float64": 11}
_OPERATORS = {"softmax": "Softmax", "log_softmax": "LogSoftmax", "logsumexp": "ReduceLogSumExp"}
# The last operator set whose reductions have their axes as an attribute.
_OPERATOR_SET, _FORMAT = 17, 8


def _number(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    value &= 2**64 - 1
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def _field(number: int, content: int | bytes | str) -> bytes:
    """A member of a message: a number, or what has a length."""
    if isinstance(content, int):
        return _number(number << 3) + _number(content)
    raw = content.encode() if isinstance(content, str) else content
    return _number(number << 3 | 2) + _number(len(raw)) + raw


def _value(name: str, dtype: str, shape: Sequence[int]) -> bytes:
    dimensions = b"".join(_field(1, _field(1, size)) for size in shape)
    tensor = _field(1, _TYPES[dtype]) + _field(2, dimensions)
    return _field(1, name) + _field(2, _field(1, tensor))


def model(op: str, dtype: str, shape: Sequence[int], result: Sequence[int], axis: int) -> bytes:
    """A model with the input x and the output y.

    Examples
    --------
    >>> model("softmax", "float32", (2, 3), (2, 3), -1)[:2]
    b'\\x08\\x08'
    """
    if op == "logsumexp":
        axes = _field(1, "axes") + _field(8, axis) + _field(20, 7)
        attributes = [axes, _field(1, "keepdims") + _field(3, 0) + _field(20, 2)]
    else:
        attributes = [_field(1, "axis") + _field(3, axis) + _field(20, 2)]
    node = _field(1, "x") + _field(2, "y") + _field(4, _OPERATORS[op]) + b"".join(_field(5, a) for a in attributes)
    graph = _field(1, node) + _field(2, "one") + _field(11, _value("x", dtype, shape))
    graph += _field(12, _value("y", dtype, result))
    return _field(1, _FORMAT) + _field(7, graph) + _field(8, _field(2, _OPERATOR_SET))
