"""The table of types: what comes in, what computes, what comes out, and what is refused by name."""

import datetime
import warnings

import ml_dtypes
import numpy as np
import pytest
from grids import FUNCTIONS, MAPS, every_dtype, every_function, every_order, no_warnings, normal
from oracle import BFLOAT16, DTYPE_IDS, DTYPES, EXACT, assert_accurate, same_bits, wrongly_rounded

pytestmark = no_warnings

INTEGERS = [np.dtype(c) for c in "bBhHiIlLqQ"]


def native(dtype) -> np.dtype:
    return np.dtype(dtype).newbyteorder("=")


@every_function
@every_dtype
@every_order
def test_floats_come_back_as_they_went_in(name, dtype, order):
    x = normal((5, 7), dtype, order=order)
    for axis in (0, 1, None):
        y = FUNCTIONS[name](x, axis)
        assert y.dtype == dtype
        assert_accurate(name, y, x, axis)


@every_function
@pytest.mark.parametrize("dtype", [*INTEGERS, np.dtype(bool)], ids=lambda d: d.char)
@every_order
def test_integers_and_booleans_count_as_float64(name, dtype, order):
    x = np.asarray(np.arange(12).reshape(3, 4) % 5, dtype=dtype, order=order)
    for axis in (0, 1, None):
        y = FUNCTIONS[name](x, axis)
        assert y.dtype == np.float64
        assert_accurate(name, y, x.astype(np.float64), axis)


@every_function
def test_integers_do_not_wrap_around(name):
    """Differences of unsigned or extreme integers overflow their own type."""
    for dtype in INTEGERS:
        limits = np.iinfo(dtype)
        x = np.array([limits.min, limits.max, limits.max - 1], dtype)
        assert_accurate(name, FUNCTIONS[name](x), x.astype(np.float64))


@every_function
def test_python_numbers_and_lists(name):
    for x in (
        [1, 2, 3],
        [1.5, -2.0],
        (0.25, 4),
        [[1, 2], [3, 4.5]],
        [True, False],
        range(5),
        [np.float64(2), 1],
        2**70,
        [2**70, 1],
    ):
        y = FUNCTIONS[name](x)
        assert y.dtype == np.float64
        assert_accurate(name, y, np.asarray(x, np.float64))
    y = FUNCTIONS[name]([np.float32(1.5), np.float32(2)])
    assert y.dtype == np.float32


@every_function
def test_numbers_give_numpy_scalars(name):
    expected = 2.5 if name == "logsumexp" else float(name == "softmax")
    for x in (2.5, np.float64(2.5), np.array(2.5)):
        for axis in (-1, 0, None):
            y = FUNCTIONS[name](x, axis)
            assert type(y) is np.float64
            assert y == expected
    for x, kind in ((np.float16(2.5), np.float16), (np.float32(2.5), np.float32)):
        assert type(FUNCTIONS[name](x)) is kind
        assert FUNCTIONS[name](x) == expected
    y = FUNCTIONS[name](ml_dtypes.bfloat16(2.5))
    assert type(y) is ml_dtypes.bfloat16
    assert float(y) == expected
    for x in (3, True, np.int8(3), np.bool_(1)):
        y = FUNCTIONS[name](x)
        assert type(y) is np.float64
        assert y == (float(x) if name == "logsumexp" else expected)


@every_dtype
def test_a_full_reduction_gives_a_numpy_scalar(dtype):
    logsumexp = FUNCTIONS["logsumexp"]
    x = normal((3, 4), dtype)
    for y in (logsumexp(x, None), logsumexp(x, (0, 1)), logsumexp(x[0]), logsumexp(x[0, 0], keepdims=True)):
        assert isinstance(y, np.generic)
        assert y.dtype == dtype
    for y in (logsumexp(x, None, keepdims=True), logsumexp(x[0], keepdims=True)):
        assert isinstance(y, np.ndarray)


@every_function
def test_metadata_stay_with_the_argument(name):
    """However large it is: the result's dtype is NumPy's own."""
    for shape in ((3, 7), (1100, 1000)):
        x = normal(shape, np.float32)
        tagged = x.astype(np.dtype(np.float32, metadata={"unit": "nat"}))
        assert tagged.dtype.metadata
        y = FUNCTIONS[name](tagged)
        assert y.dtype.metadata is None
        assert same_bits(y, FUNCTIONS[name](x))


@every_function
@pytest.mark.parametrize("char", ["e", "f", "d", "h", "i", "q"])
def test_swapped_byte_order(name, char):
    x = normal((4, 33), native(char), scale=5)
    swapped = x.astype(x.dtype.newbyteorder("S"))
    for axis in (0, 1, None):
        y, expected = FUNCTIONS[name](swapped, axis), FUNCTIONS[name](x, axis)
        assert y.dtype == expected.dtype
        assert y.dtype.isnative
        assert np.array_equal(y, expected)


@every_function
@pytest.mark.parametrize(
    "x",
    [
        np.ones(3, np.longdouble),
        np.ones(3, np.complex64),
        np.ones(3, np.complex128),
        1 + 2j,
        np.array([1, 2], object),
        [1, None],
        np.array(["1", "2"]),
        np.array([b"1", b"2"]),
        "text",
        np.array(["2020-01-01"], "M8[D]"),
        np.array([3], "m8[s]"),
        datetime.date(2020, 1, 1),
        None,
        np.zeros(2, [("a", "f4"), ("b", "f4")]),
        np.ones(3, ml_dtypes.float8_e4m3fn),
        {"a": 1.0},
    ],
    ids=lambda x: x.dtype.name if isinstance(x, np.ndarray) else type(x).__name__,
)
def test_other_types_are_refused_and_the_error_says_what_works(name, x):
    with pytest.raises(TypeError) as error:
        FUNCTIONS[name](x)
    message = str(error.value)
    assert all(word in message for word in DTYPE_IDS), message
    if isinstance(x, np.ndarray) and x.dtype.fields is None:
        assert x.dtype.name in message or str(x.dtype) in message, message


@every_function
def test_a_ragged_list_is_an_error(name):
    with pytest.raises((TypeError, ValueError)):
        FUNCTIONS[name]([[1.0, 2.0], [3.0]])


@every_function
@pytest.mark.parametrize("to", DTYPES, ids=DTYPE_IDS)
@pytest.mark.parametrize("start", [*DTYPES, np.dtype(np.int16)], ids=[*DTYPE_IDS, "int16"])
def test_dtype_gives_the_results_type(name, start, to):
    """The computation is at least as wide as both: only the final rounding is the narrow type's."""
    base = normal((6, 301), np.float64, scale=4, shift=20)
    x = base.astype(start)
    bits = {"float16": 11, "bfloat16": 8}
    for axis, order in ((1, "C"), (0, "C"), (1, "F"), (None, "C")):
        y = FUNCTIONS[name](np.asarray(x, order=order), axis, dtype=to)
        assert y.dtype == to
        exact_input = x.astype(np.float64)
        assert_accurate(name, y, exact_input, axis)
        # A wider type computed this: float64 for float32 results of float64 and integers, float32 for halves.
        wider = ((start.itemsize == 8 or start.kind == "i") and to == np.float32) or to.name in bits
        if wider and name != "log_softmax":
            assert wrongly_rounded(y, EXACT[name](exact_input, axis)) == 0
    # The logits themselves are not narrowed first: these differ by less than the narrow type resolves.
    if start == np.float64 and to != start:
        near = np.array([1000.0, 1000.0 + 1e-5, 1000.0 - 3.0])
        assert_accurate(name, FUNCTIONS[name](near, dtype=to), near, bound=1)


@every_function
def test_dtype_wider_than_the_input_computes_in_it(name):
    """float16 and float32 logits with ``dtype=float64`` give float64's accuracy, not a widened float32."""
    for start in DTYPES:
        x = normal((4, 500), start, scale=3)
        y = FUNCTIONS[name](x, dtype=np.float64)
        assert y.dtype == np.float64
        assert_accurate(name, y, x)


@every_function
def test_dtype_takes_names_and_types(name):
    x = normal((4, 5), np.float64)
    for spelling, dtype in (
        ("float32", np.float32),
        ("f4", np.float32),
        (np.float16, np.float16),
        (float, np.float64),
        (np.dtype("f8"), np.float64),
        (ml_dtypes.bfloat16, BFLOAT16),
        ("bfloat16", BFLOAT16),
        (None, np.float64),
    ):
        assert FUNCTIONS[name](x, dtype=spelling).dtype == dtype


@every_function
@pytest.mark.parametrize("dtype", [np.int32, int, bool, np.complex64, complex, np.longdouble, object, "U3", "M8[s]"])
def test_dtype_must_be_one_of_the_four(name, dtype):
    with pytest.raises(TypeError) as error:
        FUNCTIONS[name](np.ones(3), dtype=dtype)
    assert all(word in str(error.value) for word in DTYPE_IDS), str(error.value)


@every_function
def test_dtype_of_an_unknown_name(name):
    with pytest.raises(TypeError):
        FUNCTIONS[name](np.ones(3), dtype="float31")


def test_narrowing_beyond_the_range_overflows_silently():
    """A logsumexp of 1e300 is infinite in float32; log-probabilities below the range are -inf."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert FUNCTIONS["logsumexp"]([1e300, 0.0], dtype=np.float32) == np.inf
        assert np.array_equal(FUNCTIONS["log_softmax"]([1e300, 0.0], dtype=np.float32), [0, -np.inf])
        assert np.array_equal(MAPS["softmax"]([1e300, 0.0], dtype=np.float16), [1, 0])
        assert FUNCTIONS["logsumexp"](np.array([1e5]), dtype=np.float16) == np.inf
