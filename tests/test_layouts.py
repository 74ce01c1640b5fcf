"""Inputs in any memory layout: the values decide, the layout never does, and no input is ever written to."""

import itertools

import numpy as np
import pytest
from grids import FUNCTIONS, MAPS, every_dtype, every_function, every_map, layouts, no_warnings, normal
from oracle import BFLOAT16, assert_accurate, same_bits

pytestmark = no_warnings

SHAPES = ((5, 33), (33, 5), (1, 64), (64, 1), (17, 17))


@every_function
@every_dtype
def test_every_layout_gives_the_same_result(name, dtype):
    for shape in SHAPES:
        values = normal(shape, dtype, scale=4)
        for axis in (0, 1, None):
            expected = FUNCTIONS[name](values, axis)
            assert_accurate(name, expected, values, axis)
            for layout, x in layouts(values).items():
                y = FUNCTIONS[name](x, axis)
                assert y.dtype == dtype, layout
                assert same_bits(y, expected), (layout, shape, axis)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("softmax", np.float32), ("softmax", BFLOAT16), ("log_softmax", np.float64), ("logsumexp", np.float16)],
)
def test_the_input_stays_as_it_was(name, dtype):
    """Neither the values nor the bytes between them change, with and without an out."""
    values = normal((6, 50), dtype)
    where = normal((6, 50), np.float32, seed=1) > 0
    temperature = np.linspace(0.5, 2, 6)[:, None]
    for layout, x in layouts(values).items():
        base = x if x.base is None or not isinstance(x.base, np.ndarray) else x.base
        before = base.tobytes()
        for axis in (0, 1, None):
            how = {"where": where, "out": np.empty_like(FUNCTIONS[name](x, axis))}
            if dtype is np.float32 and axis == 1:
                how["temperature"] = temperature
            FUNCTIONS[name](x, axis, **how)
        assert base.tobytes() == before, layout
    assert np.array_equal(where, normal((6, 50), np.float32, seed=1) > 0)
    assert np.array_equal(temperature, np.linspace(0.5, 2, 6)[:, None])


@every_function
@every_dtype
def test_broadcast_inputs_with_zero_strides(name, dtype):
    row = normal((1, 40), dtype)
    for shape in ((6, 40), (3, 2, 40)):
        x = np.broadcast_to(row, shape)
        for axis in (-1, 0, None):
            assert same_bits(FUNCTIONS[name](x, axis), FUNCTIONS[name](np.ascontiguousarray(x), axis))
    column = np.broadcast_to(normal((6, 1), dtype), (6, 40))
    for axis in (-1, 0, None):
        assert same_bits(FUNCTIONS[name](column, axis), FUNCTIONS[name](column.copy(), axis))
    everywhere = np.broadcast_to(dtype.type(2.5), (4, 5))
    assert_accurate(name, FUNCTIONS[name](everywhere), everywhere.copy())


@every_function
def test_sliding_windows_share_their_entries(name):
    series = normal(200, np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(series, 30)
    for axis in (0, 1):
        assert same_bits(FUNCTIONS[name](windows, axis), FUNCTIONS[name](windows.copy(), axis))


@every_function
@every_dtype
def test_every_transposition_of_four_dimensions(name, dtype):
    base = normal((2, 3, 5, 4), dtype)
    for order in itertools.permutations(range(4)):
        x = base.transpose(order)
        for axis in (0, 2, -1, (0, 3), (1, 2), None):
            assert same_bits(FUNCTIONS[name](x, axis), FUNCTIONS[name](np.ascontiguousarray(x), axis))


@every_map
@every_dtype
def test_the_result_is_an_ordinary_new_array(name, dtype):
    for x in layouts(normal((4, 9), dtype)).values():
        y = MAPS[name](x)
        assert type(y) is np.ndarray
        assert y.flags.writeable
        assert y.flags.aligned
        assert not np.shares_memory(x, y)
        assert min(map(abs, y.strides)) == dtype.itemsize
        assert y.nbytes == y.size * dtype.itemsize


@every_function
def test_a_memory_map(name, tmp_path):
    values = normal((8, 100), np.float32)
    np.save(tmp_path / "logits.npy", values)
    x = np.load(tmp_path / "logits.npy", mmap_mode="r")
    y = FUNCTIONS[name](x)
    assert same_bits(y, FUNCTIONS[name](values))
    assert not isinstance(y, np.memmap)


@every_function
def test_fields_of_a_record_array(name):
    """A field's stride need not be a multiple of its size."""
    records = np.zeros((6, 40), np.dtype([("flag", "u1"), ("logit", "f4"), ("tail", "u2")]))
    records["logit"] = normal((6, 40), np.float32)
    for axis in (0, 1):
        expected = FUNCTIONS[name](records["logit"].copy(), axis)
        assert same_bits(FUNCTIONS[name](records["logit"], axis), expected)
    assert not records["flag"].any()
    if name != "logsumexp":
        FUNCTIONS[name](records["logit"], out=records["logit"])
        assert not records["flag"].any()
        assert not records["tail"].any()


@every_function
@pytest.mark.parametrize("axis", [0, 1, 2, (0, 2), None])
def test_many_dimensions_of_length_one_between(name, axis):
    x = normal((4, 5, 6), np.float32)
    spread = x[:, None, ::2, None, ::-1]
    axes = {0: 0, 1: 2, 2: 4, (0, 2): (0, 4), None: None}[axis]
    expected = FUNCTIONS[name](np.ascontiguousarray(x[:, ::2, ::-1]), axis)
    assert same_bits(np.reshape(FUNCTIONS[name](spread, axes), np.shape(expected)), expected)
