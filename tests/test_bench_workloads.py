"""The catalogue of workloads: what the issue of the day may count on."""

import numpy as np
import pytest

from softmax_numba.bench.requests import RequestError
from softmax_numba.bench.workloads import (
    DTYPES,
    OPS,
    WORKLOADS,
    YOUR_ARRAY,
    dtype_named,
    from_array,
    result_dtype,
    result_shape,
    select,
)

SHAPES = {
    "classifier-head": ((4096, 1000), -1),
    "gpt2-vocabulary": ((256, 50257), -1),
    "llama3-vocabulary": ((64, 128256), -1),
    "router": ((65536, 8), -1),
    "attention": ((8, 16, 512, 512), -1),
    "segmentation": ((8, 21, 256, 256), 1),
    "mixture": ((1_000_000, 16), -1),
    "one-lane": ((2**24,), 0),
    "single-1x10": ((1, 10), -1),
    "single-3x7": ((3, 7), -1),
    "single-16x100": ((16, 100), -1),
}
SMALL = ["router", "single-1x10", "single-16x100"]


def test_catalogue_is_complete():
    assert {name: (w.shape, w.axis) for name, w in WORKLOADS.items()} == SHAPES
    assert all(w.name == name and w.reason and w.title for name, w in WORKLOADS.items())
    assert WORKLOADS["mixture"].dtypes == ("float64",)
    assert {dtype for w in WORKLOADS.values() for dtype in w.dtypes} <= set(DTYPES)


def test_only_single_calls_are_about_latency():
    assert {name for name, w in WORKLOADS.items() if w.kind == "latency"} == {n for n in SHAPES if "single" in n}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_follow_the_seed_and_nothing_else(name, dtype):
    workload = WORKLOADS[name]
    x = workload.make(seed=3, dtype=dtype)
    assert x.shape == workload.shape
    assert x.dtype == dtype_named(dtype)
    assert np.isfinite(x.astype(np.float64)).all()
    assert np.array_equal(x, workload.make(seed=3, dtype=dtype))
    assert not np.array_equal(x, workload.make(seed=4, dtype=dtype))


def test_workloads_of_one_shape_get_other_values():
    assert not np.array_equal(WORKLOADS["single-1x10"].make(0)[0, :7], WORKLOADS["single-3x7"].make(0)[0])


def test_lengths_and_lanes():
    segmentation = WORKLOADS["segmentation"]
    assert (segmentation.length, segmentation.lanes) == (21, 8 * 256 * 256)


def test_own_array_is_taken_as_it_is():
    array = np.asfortranarray(np.arange(12, dtype=np.int16).reshape(3, 4))
    own = from_array(array, 0, "mine")
    assert own.make(seed=9, dtype="int16") is array
    assert (own.name, own.shape, own.axis, own.dtypes) == (YOUR_ARRAY, (3, 4), 0, ("int16",))
    assert own.make(seed=0, dtype="float32").dtype == np.float32
    assert own.make(seed=0, dtype="float32").flags.f_contiguous


@pytest.mark.parametrize("axis", [2, -3])
def test_own_array_with_a_wrong_axis(axis):
    with pytest.raises(RequestError, match=rf"axis {axis} is out of bounds for a 2-D array; allowed: -2 to 1"):
        from_array(np.zeros((3, 4)), axis, "mine")


def test_selection_keeps_the_catalogues_order_and_names_what_is_unknown():
    assert [w.name for w in select(["router", "classifier-head", "router"])] == ["classifier-head", "router"]
    with pytest.raises(RequestError, match=r"unknown workload 'ruoter'; known: classifier-head, .*single-16x100"):
        select(["ruoter"])


@pytest.mark.parametrize("op", OPS)
def test_result_shape_and_dtype_are_the_functions_own(op):
    import softmax_numba

    for shape, axis, dtype in [((2, 3, 4), 1, "float32"), ((5,), 0, "int32"), ((2, 3), -2, "bfloat16")]:
        x = np.ones(shape, dtype_named(dtype))
        y = np.asarray(getattr(softmax_numba, op)(x, axis=axis))
        assert result_shape(op, shape, axis) == y.shape
        assert result_dtype(x.dtype) == y.dtype
