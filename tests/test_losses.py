"""Cross-entropy and its gradient: within the bound for every option, dtype, length, place and kernel."""

import loss_oracle
import mpmath
import numpy as np
import pytest
from grids import every_dtype, no_warnings, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import KINDS, PLACES, Case, assert_right, drawn, every_kind, every_reduction
from loss_oracle import BOUND, assert_close, ulp_error
from oracle import DTYPES, LONG, eps, ulp, wide

from softmax_numba import cross_entropy, cross_entropy_and_grad

pytestmark = no_warnings

# Around the lengths of vectors, of what is read at once, and of blocks.
LENGTHS = (1, 2, 7, 8, 9, 16, 33, 100, 257, 1000, 4096, 4097, 9000)
# Every sweep costs seconds to compile: between them, the 16-bit types take all.
FEWER_LENGTHS = {"float16": (1, 2, 7, 8, 257, 1000, 4097), "bfloat16": (9, 16, 33, 100)}


@every_dtype
@pytest.mark.parametrize("inner", [1, 3, 8, 40, 300])
def test_every_length(dtype, inner):
    """The classes last, first and in the middle; every second length has another kind of targets and options."""
    kinds = list(KINDS)
    for turn, n in enumerate(FEWER_LENGTHS.get(dtype.name, LENGTHS)):
        if n * inner > 50_000:
            continue
        for shape, axis in {
            1: [((5, n), 1), ((70, n), 1)][: 1 + (n <= 100)],
            3: [((n, 3), 0)],
            8: [((2, n, 8), 1)],
            40: [((n, 40), 0)],
            300: [((n, 300), 0)],
        }[inner]:
            assert_right(drawn(inner, dtype, shape, axis, kinds[(turn + inner) % len(kinds)]))


@every_kind
def test_a_long_lane(kind):
    assert_right(drawn(1, np.float32, (2**18 + 3,), 0, kind))


@pytest.mark.parametrize("kind", ["indices", "smoothed probabilities"])
def test_two_long_lanes_side_by_side(kind):
    assert_right(drawn(1, np.float32, (2**17 + 3, 2), 0, kind))


@st.composite
def cases(draw):
    """Small arrays of 1 to 4 dimensions in any arrangement, and any options."""
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    fixed = {
        "z_loss": draw(st.sampled_from([0.0, 1e-4, 2.0])),
        "label_smoothing": draw(st.just(0.0) | st.floats(0, 0.999)),
        "focal_gamma": draw(st.just(0.0) | st.floats(0, 6)),
    }
    kind = draw(st.sampled_from(["indices", "probabilities"]))
    case = drawn(draw(st.integers(0, 999)), draw(st.sampled_from(DTYPES[2:])), shape, axis, kind, **fixed)
    return case.placed(draw(st.sampled_from(PLACES)))


@given(cases())
@settings(max_examples=250)
def test_any_call(case):
    assert_right(case)


# --- accuracy where it is hard ----------------------------------------------------------


@every_dtype
def test_a_confident_lane(dtype):
    """A loss of 1e-12 has as many right digits as one of 10: log1p of the rest, not the logarithm of the sum."""
    gaps = np.array([1, 5, 10, 20, 27.6, 60, 80])
    for n in (2, 16, 40, 1000):
        for height in (0.0, 3.0, 90.0):
            x = np.full((gaps.size, n), -np.inf)
            x[:, 1], x[:, 0] = height - gaps, height
            case = Case(x.astype(dtype), np.zeros(gaps.size, int), 1, {"reduction": "none"})
            assert_right(case)
            assert_right(case._replace(options={"reduction": "none", "focal_gamma": 1.0}))
            exact, loss = case.exact()[0].value, case.loss()
            assert ((exact > 0) & (exact < 0.4)).all()
            if dtype.itemsize > 2:
                assert (np.abs(wide(loss) - exact) <= BOUND * ulp(exact, dtype)).all()
    if dtype.itemsize > 2:
        loss = cross_entropy(np.array([0, np.log(1e-12)], dtype), 0)
        assert abs(float(loss) * 1e12 - 1) < 1e-4


@every_kind
@pytest.mark.parametrize("shift", [1e4, -1e4])
def test_large_shifts(kind, shift):
    """The loss does not see what all logits have in common, but for its z_loss."""
    steps = np.round(normal((20, 100), np.float64) * 64) / 64
    for dtype in (np.float32, np.float64):
        case = drawn(7, dtype, (20, 100), 1, kind, z_loss=0.0, reduction="none")
        near, far = (case._replace(logits=(steps + s).astype(dtype)) for s in (0, shift))
        assert_right(near)
        assert_right(far)
        exact, exact_gradient = near.exact()
        loss, gradient = far.loss_and_gradient()
        assert_close(loss, exact)
        assert_close(gradient, exact_gradient)


@every_kind
def test_many_classes_add_up_in_twice_the_precision(kind):
    """The bound does not grow with the number of terms, not even where all are alike."""
    for dtype in (np.float32, np.float64):
        case = drawn(4, dtype, (2, 100_000), 1, kind, z_loss=0.0)
        assert_right(case._replace(logits=normal((2, 100_000), dtype, scale=1e-3)))


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**60])
@every_kind
def test_small_and_large_weights(kind, scale):
    """A power of two in the weights is one in the results, and none in a mean over indices."""
    for axis in (0, 1):
        case = drawn(6, np.float32, (40, 40), axis, kind, z_loss=0.0, weight=normal(40, np.float64, scale=0.2, shift=1))
        scaled = case._replace(options=case.options | {"weight": case.options["weight"] * scale})
        assert_right(scaled)
        if case.options["reduction"] != "mean" or KINDS[kind].probabilities:
            assert float(np.sum(scaled.loss())) == float(np.sum(case.loss())) * scale


@every_kind
def test_negative_weights_follow_the_formulas(kind):
    case = drawn(8, np.float64, (30, 40), 1, kind, weight=normal(40, np.float64))
    assert_right(case)
    assert_right(case.placed("F"))


# --- the other options' meaning ---------------------------------------------------------


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", ">u8"])
def test_every_type_of_index(dtype):
    x = normal((6, 40), np.float32)
    index = np.array([0, 39, 5, 7, 20, 3])
    expected, gradient = cross_entropy_and_grad(x, index, reduction="none")
    found, other = cross_entropy_and_grad(x, index.astype(dtype), reduction="none")
    assert np.array_equal(found, expected)
    assert np.array_equal(other, gradient)


@every_dtype
def test_every_type_of_probabilities_and_weights(dtype):
    for given_type in (*DTYPES, ">f4", ">f8"):
        x = normal((6, 40), dtype)
        q = np.abs(normal((6, 40), np.float64, seed=1)).astype(given_type)
        case = Case(x, q, 1, {"weight": np.abs(normal(40, np.float64, seed=2)).astype(given_type)})
        assert_close(case.loss(), case.exact()[0], str(case))


def test_weights_that_are_no_floats():
    x, index = normal((6, 40), np.float32), np.arange(6)
    for weight in (range(40), np.arange(40, dtype=np.uint8), np.arange(40) % 2 == 0, [0.1] * 40):
        expected = cross_entropy(x, index, weight=np.array(weight, np.float64))
        assert cross_entropy(x, index, weight=weight) == cross_entropy(x, index, weight=list(weight)) == expected


def test_numbers_that_are_no_floats_are_computed_in_float64():
    index = [1, 0]
    for x in (
        [[1, 2, 3], [4, 0, 5]],
        np.array([[1, 2, 3], [4, 0, 5]], np.uint8),
        np.array([[1, 2, 3], [4, 0, 5]], ">i4"),
    ):
        loss, gradient = cross_entropy_and_grad(x, index)
        expected, expected_gradient = cross_entropy_and_grad(np.array(x, np.float64), index)
        assert loss.dtype == gradient.dtype == np.float64
        assert loss == expected
        assert np.array_equal(gradient, expected_gradient)
    assert cross_entropy([True, False], 0) == cross_entropy([1.0, 0.0], 0)


@every_reduction
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(9, 12), (4, 12, 5, 6), (12,)], ids=str)
def test_the_same_as_pytorch(shape, weighted, smoothing, reduction):
    """The loss and autograd's gradient, for indices and for probabilities: the options mean what they mean there."""
    torch = pytest.importorskip("torch")
    axis = 1 if len(shape) > 1 else 0
    kept = tuple(np.delete(shape, axis))
    x = normal(shape, np.float64)
    weight = np.abs(normal(12, np.float64, seed=1)) if weighted else None
    rng = np.random.default_rng(0)
    index = rng.integers(0, 12, kept)
    q = rng.dirichlet(np.ones(12), kept)
    for targets, ignore_index in (
        (np.asarray(index), -100),
        (np.asarray(np.where(index == 3, -1, index)), -1),
        (np.asarray(index), 7),
        (np.moveaxis(q, -1, axis), -100),
    ):
        given = torch.tensor(x, requires_grad=True)
        theirs = torch.nn.functional.cross_entropy(
            given,
            torch.tensor(targets),
            weight=None if weight is None else torch.tensor(weight),
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=smoothing,
        )
        theirs.sum().backward()
        options = {"weight": weight, "ignore_index": ignore_index, "label_smoothing": smoothing, "reduction": reduction}
        loss, gradient = cross_entropy_and_grad(x, targets, axis, **options)
        # PyTorch subtracts a logsumexp: each of its terms is off by some ULP of the largest number on the way.
        allowed = 16 * eps(np.float64) * np.abs(x).max() * (12 if weight is None else weight.sum())
        np.testing.assert_allclose(loss, theirs.detach().numpy(), rtol=0, atol=allowed * max(1, np.prod(kept)))
        np.testing.assert_allclose(gradient, given.grad.numpy(), rtol=0, atol=allowed)


@every_kind
def test_the_same_as_autograd_of_the_formula(kind):
    """All options at once, those that PyTorch does not know too: the definition, and the gradient that autograd has."""
    torch = pytest.importorskip("torch")
    for seed in range(20):
        case = drawn(seed, np.float64, (9, 12), 1, kind, reduction="sum")
        options = {"weight": np.ones(12), "ignore_index": -100} | case.options
        x = torch.tensor(np.clip(case.logits, -30, 30), requires_grad=True)
        targets = torch.tensor(case.targets.astype(np.float64 if KINDS[kind].probabilities else np.int64))
        counts = torch.ones(9, dtype=torch.bool)
        if not KINDS[kind].probabilities:
            counts = targets != options["ignore_index"]
            targets = torch.nn.functional.one_hot(torch.where(counts, targets, 0), 12).double()
        smoothing = options["label_smoothing"]
        given = ((1 - smoothing) * targets + smoothing / 12) * torch.tensor(options["weight"])
        surprise = -torch.log_softmax(x, 1)
        factor = (-torch.expm1(-surprise)).clamp(min=1e-30) ** options["focal_gamma"]
        terms = given * factor * surprise
        losses = terms.sum(1) + options["z_loss"] * torch.logsumexp(x, 1) ** 2
        theirs = losses[counts].sum()
        theirs.backward()
        loss, gradient = case._replace(logits=x.detach().numpy()).loss_and_gradient()
        exact, exact_gradient = case._replace(logits=x.detach().numpy()).exact()
        # PyTorch adds up 12 terms of a lane, each rounded a few times.
        allowed = 64 * eps(np.float64) * 12
        assert abs(float(loss) - float(theirs.detach())) <= allowed * float(exact.size)
        assert (np.abs(gradient - x.grad.numpy()) <= allowed * float(exact_gradient.size.max())).all()


# --- the oracle itself ------------------------------------------------------------------


@every_kind
def test_the_oracle_is_the_definition(kind):
    """Against mpmath: the sum over the classes of c (1 - p)**gamma (-log p), and z_loss logsumexp**2."""
    with mpmath.workdps(60):
        for seed in range(6):
            case = drawn(seed, np.float64, (3, 7), 1, kind)
            options = {"weight": np.ones(7), "ignore_index": -100} | case.options
            losses, total = [], mpmath.mpf(0)
            for z, target in zip(case.logits, case.targets, strict=True):
                z = [mpmath.mpf(float(v)) for v in z]
                of_all = max(z) + mpmath.log(mpmath.fsum(mpmath.exp(v - max(z)) for v in z))
                q = target if KINDS[kind].probabilities else np.arange(7) == target
                if not KINDS[kind].probabilities and target == options["ignore_index"]:
                    losses.append(mpmath.mpf(0))
                    continue
                loss = options["z_loss"] * of_all**2
                for k in range(7):
                    s, weight = mpmath.mpf(options["label_smoothing"]), mpmath.mpf(float(options["weight"][k]))
                    c = ((1 - s) * mpmath.mpf(float(q[k])) + s / 7) * weight
                    left = -mpmath.expm1(z[k] - of_all)
                    loss += c * left ** mpmath.mpf(options["focal_gamma"]) * (of_all - z[k])
                losses.append(loss)
                total += 1 if KINDS[kind].probabilities else mpmath.mpf(float(options["weight"][target]))
            if options["reduction"] != "none":
                losses = [mpmath.fsum(losses)]
            if options["reduction"] == "mean":
                losses = [losses[0] / total if total else mpmath.mpf(0)]
            exact = case.exact()[0]
            for mine, size, theirs in zip(np.ravel(exact.value), np.ravel(exact.size), losses, strict=True):
                difference = float(mine - LONG(float(theirs))) - float(theirs - mpmath.mpf(float(theirs)))
                assert abs(difference) <= 2.0**-56 * float(size), (kind, seed)


@every_kind
def test_the_oracles_gradient_is_the_slope_of_its_loss(kind):
    """Against central differences in longdouble: h**2 of the third derivative, and rounding by 1/h."""
    h = LONG(2.0**-21)
    for seed in range(10):
        case = drawn(seed, np.float64, (3, 6), 1, kind)
        x = wide(np.clip(case.logits, -8, 8))
        exact = case._replace(logits=x).exact()[1]
        for place in np.ndindex(x.shape):
            step = np.zeros_like(x)
            step[place] = h
            after, before = (case._replace(logits=a).exact()[0].value.sum() for a in (x + step, x - step))
            slope = (after - before) / (2 * h)
            assert abs(slope - exact.value[place]) <= 2.0**-32 * max(1, float(exact.size.max())), (seed, place)


def test_the_oracle_notices_errors():
    """A loss or an entry of the gradient that is 10 ULP off, and a NaN in the wrong place."""
    for dtype in DTYPES[2:]:
        case = drawn(0, dtype, (5, 40), 1, "smoothed", reduction="none")
        exact, exact_gradient = case.exact()
        for right in (exact, exact_gradient):
            got = right.value.astype(dtype)
            assert ulp_error(got, right) <= 0.5
            place = np.unravel_index(np.argmax(right.size), right.size.shape)
            got[place] += dtype.type(10 * ulp(right.size[place], dtype))
            assert 9 < ulp_error(got, right) < 11
            got[place] = np.nan
            assert ulp_error(got, right) == np.inf
    exact = loss_oracle.Exact(wide([1e9, 1.5]), wide([1e9, 1.5]))
    assert ulp_error(np.array([np.inf, 1.5], np.float16), exact) == 0
    assert ulp_error(np.array([np.inf, 1.502], np.float16), exact) > BOUND
