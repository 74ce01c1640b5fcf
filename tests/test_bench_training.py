"""The judge of losses and ways back, judged: known errors come out as the ULP that they are, known faults as faults."""

import mpmath
import numpy as np
import pytest

from softmax_numba.bench.accuracy import spacing
from softmax_numba.bench.training import TrainingJudge
from softmax_numba.bench.workloads import TRAINING_OPS, dtype_named, result_shapes

DTYPES = ["float16", "bfloat16", "float32", "float64"]
DIGITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}


def operands(op, dtype="float32", shape=(6, 20), seed=0):
    """Operands of an op over the last axis."""
    rng = np.random.default_rng(seed)
    kind = dtype_named(dtype)
    targets = rng.integers(0, shape[-1], shape[:-1])
    if op.startswith("linear"):
        return rng.normal(size=(*shape[:-1], 4)).astype(kind), rng.normal(size=(shape[-1], 4)).astype(kind), targets
    x = rng.normal(0, 2, shape)
    if op.startswith("cross_entropy"):
        return x.astype(kind), targets
    y = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return (y if op.startswith("log") else np.exp(y)).astype(kind), rng.normal(size=shape).astype(kind)


def numbers(array):
    return np.vectorize(lambda v: mpmath.mpf(float(v)), otypes=[object])(array)


def softmax(logits):
    """The probabilities of every row, and its logsumexp."""
    e = np.vectorize(mpmath.exp, otypes=[object])(logits)
    return e / e.sum(axis=1, keepdims=True), np.array([mpmath.log(total) for total in e.sum(axis=1)], object)


def exact(op, given):
    """High-precision results as Python objects, each with the size of what it is made of."""
    with mpmath.workprec(200):
        first = numbers(given[0])
        if op.endswith("_vjp"):
            dy = numbers(given[1])
            if op == "softmax_vjp":
                terms, factor = first * dy, first
                value = terms - factor * terms.sum(axis=1, keepdims=True)
                size = factor * np.maximum(abs(dy), largest_in_sum(terms))
            else:
                factor = np.vectorize(mpmath.exp, otypes=[object])(first)
                value = dy - factor * dy.sum(axis=1, keepdims=True)
                size = np.maximum(abs(dy), factor * largest_in_sum(dy))
            return [(value, size)]
        linear = op.startswith("linear")
        logits = first @ numbers(given[1]).T if linear else first
        p, logs = softmax(logits)
        lanes, targets = len(p), given[-1]
        q = numbers(np.eye(p.shape[1])[targets])
        loss = np.array((logs - (logits * q).sum(axis=1)).sum() / lanes, object)
        results = [(loss, loss)]
        if op == "cross_entropy_and_grad":
            results.append(((p - q) / lanes, np.maximum(p, q) / lanes))
        elif linear:
            weight = numbers(given[1])
            results.append(((p - q) @ weight / lanes, (p + q) @ abs(weight) / lanes))
            results.append(((p - q).T @ first / lanes, (p + q).T @ abs(first) / lanes))
        return results


def largest_in_sum(terms):
    return np.maximum(abs(terms.sum(axis=1, keepdims=True)), abs(terms).max(axis=1, keepdims=True))


def rounded(values, dtype):
    """Correctly rounded: mpmath rounds once to the significand's width."""

    def one(value):
        with mpmath.workprec(DIGITS[dtype]):
            return float(+value)

    return np.vectorize(one, otypes=[np.float64])(values).astype(dtype_named(dtype))


def right_results(op, given, dtype="float32"):
    return [rounded(value, dtype) for value, _ in exact(op, given)]


def half_an_ulp(op):
    """What rounding correctly costs: of a way back twice that, for a difference can be larger than either term."""
    return 1.0005 if op.endswith("_vjp") else 0.5005


def judged(op, given, *results, **options):
    judge = TrainingJudge(given, -1, **options)
    return judge.judge(op, {"y": judge.take(op, *results)})["y"]


@pytest.mark.parametrize("op", TRAINING_OPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_correctly_rounded_results_are_within_half_an_ulp(op, dtype):
    given = operands(op, dtype)
    results = right_results(op, given, dtype)
    assert tuple(r.shape for r in results) == result_shapes(op, [a.shape for a in given], -1)
    found = judged(op, given, *results)
    assert found.fault is None
    assert 0 < found.mean_ulp <= found.max_ulp <= half_an_ulp(op)
    if not op.startswith("linear"):  # of whose classes a sample is compared
        assert found.values == sum(r.size for r in results)


@pytest.mark.parametrize("op", TRAINING_OPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_result_that_is_off_by_known_ulps_is_measured_so(op, dtype):
    given = operands(op, dtype)
    results = right_results(op, given, dtype)
    for part, (_, size) in enumerate(exact(op, given)):
        of_a_target = given[-1].flat[0], 1  # whose class is looked at
        place = [(), (2, 3), of_a_target][max(part, min(size.ndim, 1))]
        off = [np.array(r) for r in results]
        ulp = spacing(np.array(float(size[place])), dtype)
        off[part][place] = (off[part][place].astype(np.float64) + 6 * ulp).astype(dtype_named(dtype))
        assert 5.4 <= judged(op, given, *off).max_ulp <= 6.6, part


def without_the_target(op, given):
    """Gradients of the logsumexp instead of the loss."""
    results = right_results(op, given)
    x, targets = given[0].astype(np.float64), given[-1]
    if not op.startswith("linear"):
        results[1][np.arange(len(x)), targets] += 1 / len(x)
        return results
    weight = given[1].astype(np.float64)
    q = np.eye(len(weight))[targets]
    return results[0], results[1] + q @ weight / len(x), results[2] + q.T @ x / len(x)


def without_the_sum(op, given):
    """As if every cotangent were orthogonal to its lane."""
    y, dy = given
    return [y * dy if op == "softmax_vjp" else dy]


def summed(op, given):
    return [len(given[0]) * result for result in right_results(op, given)]


def of_the_neighbour(op, given):
    return right_results(op, (*given[:-1], np.roll(given[-1], 1, axis=0)))


def nothing(op, given):
    """The loss alone is right; a way back has nothing but zeros."""
    first, *others = right_results(op, given)
    return [first, *map(np.zeros_like, others)] if others else [np.zeros_like(first)]


FAULTS = [
    *((op, how) for op in TRAINING_OPS for how in (of_the_neighbour, nothing)),
    *((op, summed) for op in TRAINING_OPS if "cross_entropy" in op),
    *((op, without_the_sum) for op in TRAINING_OPS if op.endswith("_vjp")),
    *((op, without_the_target) for op in TRAINING_OPS if op.endswith("_and_grad")),
]


@pytest.mark.parametrize(("op", "how"), FAULTS, ids=lambda p: getattr(p, "__name__", p))
def test_what_is_wrong_is_a_fault(op, how):
    given = operands(op, shape=(6, 40))
    wrong = [np.asarray(result, np.float32) for result in how(op, given)]
    assert "off by" in judged(op, given, *wrong).fault


@pytest.mark.parametrize("op", TRAINING_OPS)
def test_nan_where_a_number_belongs_is_a_fault_in_any_result(op):
    given = operands(op)
    right = right_results(op, given)
    for part in range(len(right)):
        wrong = [np.array(result) for result in right]
        wrong[part][(given[-1][0],) if part == 2 else ...] = np.nan
        assert "nan" in judged(op, given, *wrong).fault


def test_the_words_say_which_result_is_wrong():
    given = operands("cross_entropy_and_grad")
    loss, gradient = right_results("cross_entropy_and_grad", given)
    assert "the loss is off" in judged("cross_entropy_and_grad", given, 2 * loss, gradient).fault
    assert "the gradients of a lane are off" in judged("cross_entropy_and_grad", given, loss, 2 * gradient).fault


@pytest.mark.parametrize("gap", [20.0, 45.0])
def test_a_tiny_loss_has_all_its_digits(gap):
    """It vanishes beside the logits, and beside 1."""
    given = np.array([[0.0, gap, -1.0]], np.float32), np.array([1])
    with mpmath.workprec(200):
        loss = mpmath.log1p(mpmath.exp(-gap) + mpmath.exp(-gap - 1))
    right = rounded(np.array(loss, object), "float32")
    assert judged("cross_entropy", given, right).max_ulp <= 0.5005
    assert judged("cross_entropy", given, np.float32(0)).max_ulp > 2**22


def test_a_long_lane_is_judged_at_its_target_too():
    x, targets = np.zeros((1, 5000), np.float32), np.array([1234])
    right = np.full(x.shape, 1 / 5000)
    loss, gradient = np.float32(np.log(5000)), right.astype(np.float32)
    for seed in range(3):
        found = judged("cross_entropy_and_grad", (x, targets), loss, gradient, values=100, seed=seed)
        assert 100 < found.values <= 102 and "off by" in found.fault
    gradient[0, 1234] -= 1
    assert judged("cross_entropy_and_grad", (x, targets), loss, gradient, values=100).fault is None


def test_a_mean_is_taken_over_lanes_that_are_not_compared(monkeypatch):
    monkeypatch.setattr("softmax_numba.bench.training.BLOCK", 64)
    given = operands("cross_entropy_and_grad", shape=(50, 20))
    results = right_results("cross_entropy_and_grad", given)
    found = judged("cross_entropy_and_grad", given, *results, values=60)
    assert (found.lanes, found.values) == (3, 61)
    assert found.max_ulp <= 0.5005
    assert judged("cross_entropy_and_grad", given, *results).max_ulp <= 0.5005


@pytest.mark.parametrize(("shape", "axis"), [((5, 3, 4), 1), ((7, 6), 0)])
@pytest.mark.parametrize("op", [op for op in TRAINING_OPS if not op.startswith("linear")])
def test_any_axis(op, shape, axis):
    """The same lanes in another place, the targets in the order of what is left."""
    turned = tuple(np.moveaxis(np.empty(shape), axis, -1).shape)
    flat = operands(op, shape=(np.prod(turned[:-1]), turned[-1]))
    results = right_results(op, flat)

    def there(array):
        if array.ndim < 2:
            return array.reshape(turned[:-1]) if array.ndim else array
        return np.moveaxis(array.reshape(turned), -1, axis)

    judge = TrainingJudge(tuple(map(there, flat)), axis)
    found = judge.judge(op, {"y": judge.take(op, *map(there, results))})["y"]
    assert found.fault is None and found.max_ulp <= half_an_ulp(op)
