"""Lanes in parts: whatever the blocks and their order, the whole lane's maximum, logsumexp and probabilities."""

import numpy as np
import oracle
import pytest
from grids import every_dtype, normal
from hypothesis import given, settings
from hypothesis import strategies as st

import softmax_numba
from softmax_numba import OnlineLogSumExp


def fed(x, cuts, axis=-1):
    seen = OnlineLogSumExp(axis)
    for block in np.split(x, cuts, axis):
        seen.update(block)
    return seen


@given(
    st.lists(st.integers(0, 300), max_size=6).map(sorted),
    st.sampled_from([0, 1, 2]),
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.integers(0, 2**32),
)
@settings(max_examples=20, deadline=None)
def test_any_blocks_give_the_lane(cuts, axis, dtype, seed):
    shape = [3, 4, 5]
    shape[axis] = 300
    x = normal(tuple(shape), dtype, seed=seed)
    seen = fed(x, cuts, axis)
    assert np.array_equal(seen.max, x.max(axis))
    exact = oracle.logsumexp(x, axis)
    unit = oracle.ulp(np.maximum(np.abs(exact), np.abs(x).max(axis).astype(float)), np.float64)
    narrow = oracle.ulp(np.maximum(np.abs(exact), np.abs(x).max(axis).astype(float)), np.float32)
    assert np.all(np.abs(seen.logsumexp - exact) <= 4 * (unit if dtype == np.float64 else narrow))
    for block, part in zip(np.split(x, cuts, axis), np.split(oracle.softmax(x, axis), cuts, axis), strict=True):
        got = seen.probabilities(block)
        assert got.dtype == dtype and got.shape == block.shape
        if dtype == np.float16:
            assert oracle.wrongly_rounded(got, part, slack=1e-2) == 0
        else:
            assert np.all(np.abs(got - part) <= (8 if dtype == np.float64 else 4) * oracle.ulp(part, dtype))


@every_dtype
@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 9000), 1), ((200, 7), 1), ((5, 300, 40), 1), ((4, 3, 500), 1), ((2**18 + 5,), 0)]
)
def test_every_layout(shape, axis, dtype):
    x = normal(shape, dtype)
    seen = fed(x, [shape[axis] // 3], axis)
    y, whole = seen.probabilities(x), softmax_numba.softmax(x, axis)
    assert y.dtype == x.dtype
    unit = oracle.ulp(oracle.wide(whole), dtype)
    assert np.all(np.abs(oracle.wide(y) - oracle.wide(whole)) <= 8 * unit)  # each of the two within 4


def test_merging_is_associative_and_commutative_and_the_empty_part_is_its_zero():
    x = normal((50, 90), np.float64, scale=20)
    a, b, c = (OnlineLogSumExp().update(part) for part in np.split(x, [10, 30], 1))
    ways = [a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(a).merge(b)]
    exact = oracle.logsumexp(x)
    for way in ways:
        assert np.array_equal(way.max, x.max(1))
        assert np.all(np.abs(way.logsumexp - exact) <= 4 * oracle.ulp(np.abs(x).max(1), np.float64))
    nothing = OnlineLogSumExp()
    for way in (a.merge(nothing), nothing.merge(a)):
        assert np.array_equal(way.logsumexp, a.logsumexp) and np.array_equal(way.max, a.max)
    empty = OnlineLogSumExp().update(np.empty((50, 0)))
    assert np.array_equal(a.merge(empty).logsumexp, a.logsumexp)
    assert np.all(empty.logsumexp == -np.inf) and np.all(empty.max == -np.inf)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("axis", [0, 1])
def test_infinities_and_nan(dtype, axis):
    inf, nan = np.inf, np.nan
    lanes = [
        ([-inf, -inf], [1.0, 2.0]),
        ([1.0], [-inf, -inf, -inf]),
        ([-inf], [-inf]),
        ([nan], [1.0]),
        ([-inf, nan], [1.0]),
        ([1.0], [inf]),
        ([inf], [inf, 0.0]),
        ([inf], [nan]),
        ([-inf, nan], [-inf]),
    ]
    for first, second in lanes:
        for parts in ((first, second), (second, first)):
            blocks = [np.broadcast_to(np.array(p, dtype)[:, None], (len(p), 9)) for p in parts]
            whole = np.concatenate(blocks)
            expected, top, y = oracle.logsumexp(whole, 0), whole.max(0), oracle.softmax(whole, 0)
            if axis == 1:
                blocks, whole, y = [b.T for b in blocks], whole.T, y.T
            seen = OnlineLogSumExp(axis)
            for block in blocks:
                seen.update(block)
            merged = OnlineLogSumExp(axis).update(blocks[0]).merge(OnlineLogSumExp(axis).update(blocks[1]))
            for got in (seen, merged):
                assert np.allclose(got.logsumexp, expected.astype(float), equal_nan=True), (parts, got)
                assert np.array_equal(got.max, top, equal_nan=True)
                assert np.allclose(got.probabilities(whole), y.astype(float), equal_nan=True), parts


def test_a_sum_that_its_largest_term_outweighs_keeps_its_digits():
    x = np.array([0.0, -30.0, -31.0])
    seen = fed(x, [1, 2])
    assert seen.logsumexp == pytest.approx(float(np.exp(-30.0) + np.exp(-31.0)), rel=1e-12)


def test_blocks_in_other_dtypes_than_they_were_fed():
    x = normal((4, 100), np.float64)
    seen = OnlineLogSumExp().update(x)
    got = seen.probabilities(x.astype(np.float32))
    exact = np.exp(oracle.wide(x.astype(np.float32)) - oracle.logsumexp(x)[:, None])
    assert got.dtype == np.float32
    assert np.all(np.abs(got - exact) <= 4 * oracle.ulp(exact, np.float32))


@pytest.mark.parametrize("order", ["as drawn", "rising", "falling", "in leaps"])
@pytest.mark.parametrize("length", [1, 50])
def test_many_blocks_are_as_accurate_as_few(order, length):
    x = np.random.default_rng(3).normal(scale=3.0, size=3000)
    if order in ("rising", "falling"):
        x = np.sort(x)[:: 1 if order == "rising" else -1]
    elif order == "in leaps":
        x = x + np.repeat([-2000.0, 0.0, 700.0, 690.0], 750)
    x = x.reshape(1, -1)
    seen = OnlineLogSumExp()
    for k in range(0, x.size, length):
        seen.update(x[:, k : k + length])
    exact = oracle.softmax(x)
    normal_ones = exact > 1e-290
    error = np.abs(seen.probabilities(x) - exact) / oracle.ulp(exact, np.float64)
    assert error[normal_ones].max() <= 8
    assert abs(seen.logsumexp[0] - oracle.logsumexp(x, 1)[0]) <= 4 * np.spacing(np.abs(x).max())


def test_in_place_and_into_another_array():
    x = normal((5, 200), np.float32)
    seen = OnlineLogSumExp().update(x)
    y, out, same = seen.probabilities(x), np.empty_like(x), x.copy()
    assert seen.probabilities(x, out=out) is out and np.array_equal(out, y)
    assert seen.probabilities(same, out=same) is same and np.array_equal(same, y)
    backwards = np.empty_like(x)[:, ::-1]
    assert np.array_equal(seen.probabilities(x, out=backwards), y)


def test_masked_arrays():
    """The mask is honoured as `where` of softmax: what is hidden counts for nothing."""
    x = np.array([[1.0, np.nan, 3.0], [2.0, 4.0, np.inf]])
    block = np.ma.array(x, mask=[[0, 1, 0], [0, 0, 1]])
    shown = np.where(block.mask, -np.inf, x)
    seen, plain = OnlineLogSumExp().update(block), OnlineLogSumExp().update(shown)
    assert np.array_equal(seen.logsumexp, plain.logsumexp) and np.isfinite(seen.logsumexp).all()
    found = seen.probabilities(block)
    assert type(found) is np.ndarray and np.array_equal(found, plain.probabilities(shown))


def test_torch_and_lists():
    torch = pytest.importorskip("torch")
    block = torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16)
    seen = OnlineLogSumExp().update(block).update([[3.0, 4.0]])
    assert isinstance(seen.probabilities(block), torch.Tensor) and seen.probabilities(block).dtype == torch.bfloat16
    assert seen.logsumexp == pytest.approx([float(np.log(np.exp([1.0, 2, 3, 4]).sum()))], rel=1e-6)
    assert seen.max == 4.0


def test_errors_name_what_is_wrong():
    with pytest.raises(TypeError, match=r"axis must be an int, not 1\.5"):
        OnlineLogSumExp(1.5)
    seen = OnlineLogSumExp()
    assert seen.logsumexp == -np.inf and seen.max == -np.inf and repr(seen) == "OnlineLogSumExp(axis=-1)"
    with pytest.raises(ValueError, match="no block has been fed yet"):
        seen.probabilities([1.0])
    with pytest.raises(ValueError, match="at least one axis"):
        seen.update(1.0)
    seen.update(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"shape \(3,\), those fed before \(2,\)"):
        seen.update(np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"shape \(3,\), those fed before \(2,\)"):
        seen.probabilities(np.zeros((3, 3)))
    with pytest.raises(TypeError, match="complex128 of block is not supported"):
        seen.update(np.zeros((2, 3), complex))
    with pytest.raises(np.exceptions.AxisError):
        OnlineLogSumExp(2).update(np.zeros((2, 3)))
    with pytest.raises(TypeError, match="only an OnlineLogSumExp"):
        seen.merge(np.zeros(2))
    with pytest.raises(ValueError, match="out has shape"):
        seen.probabilities(np.zeros((2, 3)), out=np.zeros((3, 2)))
