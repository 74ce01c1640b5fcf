"""The loss of a linear classifier: that of its logits, whatever the chunks, with gradients by all that goes in."""

import tracemalloc

import numpy as np
import pytest

from softmax_numba import cross_entropy_and_grad, linear, linear_cross_entropy, linear_cross_entropy_and_grad

RNG = np.random.default_rng(5)
ROWS, FEATURES, CLASSES = 50, 7, 30


def case(dtype=np.float64, shape=(ROWS,)):
    hidden = RNG.normal(size=(*shape, FEATURES)).astype(dtype)
    weight, bias = RNG.normal(size=(CLASSES, FEATURES)).astype(dtype), RNG.normal(size=CLASSES).astype(dtype)
    targets = RNG.integers(0, CLASSES, shape)
    targets.flat[::6] = -100
    return hidden, weight, targets, bias


def in_two_steps(hidden, matrix, targets, bias, **options):
    rows = hidden.reshape(-1, FEATURES)
    flat = targets.reshape(-1) if targets.dtype.kind == "i" else targets.reshape(-1, CLASSES)
    loss, dlogits = cross_entropy_and_grad(rows @ matrix.T + bias, flat, **options)
    loss = loss.reshape(hidden.shape[:-1]) if np.ndim(loss) else loss
    return loss, (dlogits @ matrix).reshape(hidden.shape), dlogits.T @ rows, dlogits.sum(0)


@pytest.fixture(params=["one chunk", "many"])
def chunks(request, monkeypatch):
    if request.param == "many":
        monkeypatch.setattr(linear, "_FEWEST_ROWS", 9)
        monkeypatch.setattr(linear, "CHUNK_BYTES", 1)
        monkeypatch.setattr(linear, "_CLASSES", 8)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("kind", ["indices", "probabilities"])
def test_the_two_steps_in_one(chunks, kind, reduction):
    hidden, weight, targets, bias = case(shape=(5, 10))
    if kind == "probabilities":
        targets = RNG.random((5, 10, CLASSES))
    of_class = RNG.random(CLASSES)
    options = {"label_smoothing": 0.1, "z_loss": 0.01, "reduction": reduction}
    wanted = in_two_steps(hidden, weight, targets, bias, weight=of_class, **options)
    got = linear_cross_entropy_and_grad(hidden, weight, targets, bias, class_weight=of_class, **options)
    for given, right, name in zip(got, wanted, ("loss", "dhidden", "dweight", "dbias"), strict=True):
        assert np.shape(given) == np.shape(right)
        np.testing.assert_allclose(given, right, rtol=1e-12, atol=1e-13 * np.abs(right).max(), err_msg=name)
    alone = linear_cross_entropy(hidden, weight, targets, bias, class_weight=of_class, **options)
    assert np.array_equal(alone, got[0])


def test_gradients_against_central_differences():
    hidden, weight, targets, bias = case()
    _, *gradients = linear_cross_entropy_and_grad(hidden, weight, targets, bias, focal_gamma=1.5)
    step = 1e-5
    for i, (array, gradient) in enumerate(zip((hidden, weight, bias), gradients, strict=True)):
        for place in [(0,) * array.ndim, (3,) * array.ndim, (6,) * array.ndim]:
            losses = []
            for sign in (1, -1):
                arrays = [hidden, weight, bias]
                arrays[i] = array.copy()
                arrays[i][place] += sign * step
                losses.append(linear_cross_entropy(*arrays[:2], targets, arrays[2], focal_gamma=1.5))
            assert gradient[place] == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-6, abs=1e-10)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_narrow_types_are_computed_with_in_float32(dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    hidden, weight, targets, bias = case()
    narrow = [a.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype) for a in (hidden, weight, bias)]
    wide = [a.astype(np.float64) for a in narrow]
    got = linear_cross_entropy_and_grad(narrow[0], narrow[1], targets, narrow[2])
    right = in_two_steps(wide[0], wide[1], targets, wide[2])
    for given, exact in zip(got, right, strict=True):
        assert given.dtype == narrow[0].dtype
        eps = max(float(ml_dtypes.finfo(given.dtype).eps), 1e-6)
        scale = np.abs(exact).max()
        assert np.all(np.abs(given.astype(np.float64) - exact) <= eps * np.abs(exact) + 1e-6 * scale)


def test_without_a_bias_there_is_no_gradient_by_it():
    hidden, weight, targets, _ = case(np.float32)
    loss, dhidden, dweight, dbias = linear_cross_entropy_and_grad(hidden, weight, targets)
    right = in_two_steps(hidden, weight, targets, np.float32(0))
    assert dbias is None and loss == pytest.approx(right[0], rel=1e-6)
    np.testing.assert_allclose(dhidden, right[1], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(dweight, right[2], rtol=1e-4, atol=1e-7)


@pytest.mark.filterwarnings("error")
def test_no_rows_and_nothing_that_counts():
    hidden, weight, targets, bias = case()
    for rows, wanted in ((hidden[:0], targets[:0]), (hidden, np.full(ROWS, -100))):
        loss, *gradients = linear_cross_entropy_and_grad(rows, weight, wanted, bias)
        assert loss == 0.0 and not any(np.any(g) for g in gradients)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_a_row_that_counts_for_nothing_may_hold_anything(chunks, strange):
    hidden, weight, targets, bias = case()
    targets[[3, 20]] = -100
    expected = linear_cross_entropy_and_grad(hidden, weight, targets, bias)
    hidden[3], hidden[20, 2] = strange, strange
    for given, right in zip(linear_cross_entropy_and_grad(hidden, weight, targets, bias), expected, strict=True):
        np.testing.assert_allclose(given, right, rtol=1e-12)
    hidden[4] = strange
    assert all(np.isnan(one).any() for one in linear_cross_entropy_and_grad(hidden, weight, targets, bias))


def test_torch_tensors_come_back_as_such():
    torch = pytest.importorskip("torch")
    hidden, weight, targets, bias = (torch.from_numpy(a) for a in case(np.float32))
    for given in linear_cross_entropy_and_grad(hidden, weight, targets, bias):
        assert isinstance(given, torch.Tensor) and given.dtype == torch.float32


def test_the_logits_are_never_there_as_a_whole(monkeypatch):
    """32 MB of logits at a time for 256; the gradient of the weights is the result, 6 MB."""
    monkeypatch.setattr(linear, "CHUNK_BYTES", 2**25)
    rows, features, classes = 2048, 48, 32768
    hidden, weight = np.ones((rows, features), np.float32), np.zeros((classes, features), np.float32)
    targets = np.zeros(rows, np.int64)
    linear_cross_entropy_and_grad(hidden, weight, targets)
    tracemalloc.start()
    try:
        linear_cross_entropy_and_grad(hidden, weight, targets)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * linear.CHUNK_BYTES < rows * classes * 4 / 3


@pytest.mark.parametrize("rows", [0, 1, 64, 65, 584, 585, 2048, 2049, 10_000])
@pytest.mark.parametrize("classes", [1, 10, 50_257, 10**6])
def test_chunks_are_of_equal_size(rows, classes):
    """But for the last, which may have fewer rows: one each than there are chunks, at most."""
    most = max(64, linear.CHUNK_BYTES // (4 * classes))
    size = linear._rows_of_chunk(rows, 4 * classes)
    assert size <= most
    chunks = -(-rows // size) if rows else 0
    assert chunks == -(-rows // most)
    assert rows == 0 or 0 <= chunks * size - rows < chunks


def test_errors_name_what_is_wrong():
    hidden, weight, targets, bias = case()
    for given, error, message in [
        ((hidden, weight[0], targets), ValueError, r"weight must have the shape \(classes, features\), not \(7,\)"),
        ((hidden[:, :3], weight, targets), ValueError, r"hidden has shape \(50, 3\); its last axis .* length 7"),
        ((np.float64(1), weight, targets), ValueError, r"hidden has shape \(\)"),
        ((hidden, weight, targets, bias[:3]), ValueError, r"bias has shape \(3,\); it must be \(30,\)"),
        ((hidden, weight, targets[:3]), ValueError, r"shape \(50,\) .* not \(3,\)"),
        ((hidden, weight, np.full(ROWS, CLASSES)), IndexError, r"targets\[\d+\] is 30; allowed are 0 to 29"),
        ((hidden.astype(complex), weight, targets), TypeError, "complex128 of hidden is not supported"),
        ((np.ma.masked_less(hidden, 0), weight, targets), TypeError, r"hidden is a masked array with \d+ of 350"),
        ((hidden, weight, np.ma.masked_equal(targets, targets[0])), TypeError, "targets is a masked array"),
    ]:
        for function in (linear_cross_entropy, linear_cross_entropy_and_grad):
            with pytest.raises(error, match=message):
                function(*given)
    with pytest.raises(ValueError, match=r"^class_weight has shape \(2,\)"):
        linear_cross_entropy(hidden, weight, targets, class_weight=[1.0, 2.0])
