"""The out argument: exact shape and dtype, any layout, any overlap with the input; the caller gets it back."""

import ml_dtypes
import numpy as np
import pytest
from grids import (
    FUNCTIONS,
    MAPS,
    every_dtype,
    every_function,
    every_map,
    every_order,
    layouts,
    no_warnings,
    normal,
)
from oracle import DTYPES, same_bits

pytestmark = no_warnings


@every_function
@every_dtype
@every_order
def test_out_is_filled_and_given_back(name, dtype, order):
    x = normal((6, 40), dtype, order=order)
    for axis in (0, 1, None, (0, 1)):
        expected = FUNCTIONS[name](x, axis)
        for out_order in "CF":
            out = np.full(np.shape(expected), 77, dtype, order=out_order)
            assert FUNCTIONS[name](x, axis, out=out) is out
            assert same_bits(out, expected)


@every_dtype
def test_logsumexp_with_keepdims(dtype):
    logsumexp = FUNCTIONS["logsumexp"]
    x = normal((3, 4, 5), dtype)
    for axis in (0, -1, (0, 2), None):
        expected = logsumexp(x, axis, keepdims=True)
        out = np.empty(expected.shape, dtype)
        assert logsumexp(x, axis, keepdims=True, out=out) is out
        assert same_bits(out, expected)
        with pytest.raises(ValueError, match="shape"):
            logsumexp(x, axis, keepdims=False, out=out)


@every_function
@every_dtype
@pytest.mark.parametrize("size", [(6, 41), (70, 7)], ids=["few rows", "rows that are turned"])
def test_strided_out(name, dtype, size):
    """Only the view's own entries are written: what lies between them stays."""
    x = normal(size, dtype)
    for axis in (0, 1):
        expected = FUNCTIONS[name](x, axis)
        shape = expected.shape
        room = np.full(tuple(2 * n for n in shape), 77, dtype)
        for view in (
            room[tuple(slice(None, None, 2) for _ in shape)],
            room[tuple(slice(None, None, -2) for _ in shape)],
            room[tuple(slice(n // 2, n // 2 + n) for n in shape)],
        ):
            room[...] = 77
            assert FUNCTIONS[name](x, axis, out=view) is view
            assert same_bits(view.copy(), expected)
            view[...] = 77
            assert (room == 77).all()


@every_map
@every_dtype
@every_order
def test_in_place(name, dtype, order):
    for shape, axis in (
        ((7, 130), 1),
        ((130, 7), 0),
        ((3, 5, 7), 1),
        ((4, 40), None),
        ((3, 4, 5), (0, 2)),
        ((1000,), 0),
    ):
        x = normal(shape, dtype, order=order)
        expected = MAPS[name](x, axis)
        assert MAPS[name](x, axis, out=x) is x
        assert same_bits(x, expected)


@every_map
@every_dtype
def test_in_place_in_any_layout(name, dtype):
    values = normal((6, 35), dtype)
    for axis in (0, 1, None):
        expected = MAPS[name](values, axis)
        for layout, x in layouts(values).items():
            if x.flags.writeable and x.dtype == dtype:
                assert MAPS[name](x, axis, out=x) is x, layout
                assert same_bits(x, expected), layout


@every_map
@every_dtype
def test_overlap_by_a_shift(name, dtype):
    """out starts a few entries before or after x in the same memory, within a row and across rows."""
    m, n = 9, 70
    for shift in (1, 3, n // 2, n, n + 1, 3 * n):
        for forward in (True, False):
            for axis in (0, 1, None):
                room = np.zeros(m * n + shift, dtype)
                x, out = room[: m * n].reshape(m, n), room[shift:].reshape(m, n)
                if forward:
                    x, out = out, x
                x[...] = normal((m, n), dtype)
                expected = MAPS[name](x.copy(), axis)
                assert MAPS[name](x, axis, out=out) is out
                assert same_bits(out, expected), (shift, forward, axis)


@every_map
@every_dtype
def test_overlap_by_transposition_and_reversal(name, dtype):
    for view in (
        lambda a: a.T,
        lambda a: a[::-1],
        lambda a: a[:, ::-1],
        lambda a: a[::-1, ::-1],
        lambda a: a.T[::-1],
    ):
        for axis in (0, 1, None):
            x = normal((33, 33), dtype)
            expected = MAPS[name](x.copy(), axis)
            out = view(x)
            assert MAPS[name](x, axis, out=out) is out
            assert same_bits(out.copy(), expected)
    room = normal(400, dtype)
    for x, out in ((room[::2], room[:200]), (room[:200], room[::2]), (room[1::2], room[199::-1])):
        room[...] = normal(400, dtype)
        expected = MAPS[name](x.copy())
        MAPS[name](x, out=out)
        assert same_bits(out.copy(), expected)


@every_dtype
def test_logsumexp_into_its_own_input(dtype):
    """A row or a column of x holds the result: every lane must be read before its entry is overwritten."""
    for axis in (0, 1):
        for place in (0, 5, -1):
            x = normal((20, 20), dtype)
            expected = FUNCTIONS["logsumexp"](x.copy(), axis)
            for out in (x[place], x[:, place]):
                x[...] = normal((20, 20), dtype)
                assert FUNCTIONS["logsumexp"](x, axis, out=out) is out
                assert same_bits(out.copy(), expected)


@every_map
def test_overlap_across_dtypes(name):
    """With ``dtype=``, out may view x's memory in a type of another size."""
    room = np.zeros(2 * 300)
    x, out = room[:300].reshape(3, 100), room.view(np.float32)[17:317].reshape(3, 100)
    x[...] = normal((3, 100), np.float64)
    expected = MAPS[name](x.copy(), dtype=np.float32)
    MAPS[name](x, dtype=np.float32, out=out)
    assert same_bits(out.copy(), expected)


@every_map
def test_where_and_temperature_may_overlap_out_too(name):
    x = normal((4, 64), np.float32)
    room = np.zeros((4, 64), np.float32)
    where = room.view(np.bool_)[:, :64]
    where[...] = normal((4, 64), np.float32, seed=1) > 0
    expected = MAPS[name](x, where=where.copy())
    assert same_bits(MAPS[name](x, where=where, out=room), expected)
    room = np.full((4, 64), 2.0)
    temperature = room[:, :1]
    temperature[:, 0] = (0.5, 1.0, 2.0, 3.0)
    expected = MAPS[name](x.astype(float), temperature=temperature.copy())
    assert same_bits(MAPS[name](x.astype(float), temperature=temperature, out=room), expected)


@every_function
@every_dtype
def test_wrong_shape_says_both(name, dtype):
    x = normal((3, 4), dtype)
    right = "(3,)" if name == "logsumexp" else "(3, 4)"
    for shape in ((4, 3), (3, 5), (12,), (1, 3, 4), (3, 1), (), (0,)):
        with pytest.raises(ValueError, match="out") as error:
            FUNCTIONS[name](x, out=np.empty(shape, dtype))
        assert right in str(error.value)
        assert str(shape) in str(error.value)


@every_function
@every_dtype
def test_wrong_dtype_says_both(name, dtype):
    x = normal((3, 4), dtype)
    shape = (3,) if name == "logsumexp" else (3, 4)
    others = [d for d in (*DTYPES, np.dtype(np.int64), np.dtype(np.complex128)) if d != dtype]
    for other in others:
        with pytest.raises(TypeError) as error:
            FUNCTIONS[name](x, out=np.empty(shape, other))
        assert dtype.name in str(error.value)
        assert other.name in str(error.value)
    with pytest.raises(TypeError, match="float64"):
        FUNCTIONS[name]([[1, 2], [3, 4]], out=np.empty((2, 2)[: 1 if name == "logsumexp" else 2], np.float32))


@every_function
@pytest.mark.parametrize("to", DTYPES, ids=lambda d: d.name)
def test_out_goes_with_dtype(name, to):
    x = normal((3, 40), np.float32)
    expected = FUNCTIONS[name](x, dtype=to)
    out = np.empty_like(expected)
    assert FUNCTIONS[name](x, dtype=to, out=out) is out
    assert same_bits(out, expected)
    wrong = np.empty(out.shape, np.float16 if to != np.float16 else np.float64)
    with pytest.raises(TypeError, match=to.name):
        FUNCTIONS[name](x, dtype=to, out=wrong)


@every_function
def test_read_only_out(name):
    x = normal((3, 4), np.float32)
    out = np.zeros((3,) if name == "logsumexp" else (3, 4), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        FUNCTIONS[name](x, out=out)
    assert not out.any()


@every_function
@pytest.mark.parametrize("out", [[0.0, 0.0, 0.0], 1.0, "out", (np.empty(3),)], ids=lambda o: type(o).__name__)
def test_out_must_be_an_array(name, out):
    with pytest.raises(TypeError):
        FUNCTIONS[name](np.zeros((3, 3)) if name == "logsumexp" else np.zeros(3), out=out)


@every_function
def test_zero_dimensional_out(name):
    out = np.zeros(())
    assert FUNCTIONS[name](2.0, out=out) is out
    assert out == {"softmax": 1, "log_softmax": 0, "logsumexp": 2}[name]
    x = normal(9, np.float32)
    out = np.zeros((), np.float32)
    assert FUNCTIONS["logsumexp"](x, out=out) is out
    assert out == FUNCTIONS["logsumexp"](x)


@every_function
def test_empty_out(name):
    out = np.empty((0, 3) if name != "logsumexp" else (0,), ml_dtypes.bfloat16)
    assert FUNCTIONS[name](np.empty((0, 3), ml_dtypes.bfloat16), out=out) is out


@every_function
def test_nothing_is_written_when_an_argument_is_wrong(name):
    x = normal((3, 4), np.float32)
    out = np.full((3,) if name == "logsumexp" else (3, 4), 77, np.float32)
    with pytest.raises(ValueError, match="where"):
        FUNCTIONS[name](x, where=np.ones((5, 7), bool), out=out)
    with pytest.raises(np.exceptions.AxisError):
        FUNCTIONS[name](x, 5, out=out)
    assert (out == 77).all()


PLACES = {
    "columns": lambda room, n, length: room.reshape(length, -1)[:, :n].T,
    "every second": lambda room, n, length: room.reshape(n, -1)[:, : 2 * length : 2],
    "with gaps": lambda room, n, length: room.reshape(n, -1)[:, 3 : 3 + length],
    "last first": lambda room, n, length: room.reshape(n, -1)[::-1, :length],
    "backwards": lambda room, n, length: room.reshape(n, -1)[:, length - 1 :: -1][:, :length],
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "length"), [(9, 5), (100, 8), (130, 31), (20_000, 7), (40, 100), (1100, 100)])
@pytest.mark.parametrize("name", MAPS)
def test_results_anywhere_and_nothing_else_written(name, n, length, dtype, place):
    """Many short rows, few, and longer ones, serial and planned: into results of any strides."""
    x = np.random.default_rng(n).normal(size=(n, length)).astype(dtype)
    room = np.full(n * length * 8, 7, dtype)
    out = PLACES[place](room, n, length)
    assert out.shape == x.shape
    expected = np.concatenate([MAPS[name](row[None]) for row in x[:200]])
    expected = np.concatenate([expected, MAPS[name](x)[200:]])
    touched = np.zeros(room.size, bool)
    PLACES[place](touched, n, length)[...] = True
    assert MAPS[name](x, out=out) is out
    assert same_bits(out, expected)
    assert (room[~touched] == 7).all()
