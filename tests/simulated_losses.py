"""cross_entropy and cross_entropy_and_grad on a GPU, in the simulator: values, plans, targets, errors."""

import loss_oracle
import numpy as np
import pytest
from gpu_cases import HAS_CLUSTERS, REVERSES, Gpu, Watched, host, is_on_gpu, on_gpu, only_stand_ins, seen
from grids import every_dtype, normal
from loss_cases import drawn, every_kind, every_reduction
from loss_oracle import assert_close
from oracle import DTYPES, same_bits

from softmax_numba import cross_entropy, cross_entropy_and_grad
from softmax_numba.gpu import walk
from softmax_numba.gpu.loss_sums import CHUNK

NAN, INF = np.nan, np.inf
FEW = {"multiprocessors": 1000, "warps": 2}  # any number of lanes is few
MANY = {"multiprocessors": 0, "warps": 2}
BESIDE = ("copy", "encode", "weigh", "gauge", "lose", "conclude")  # what runs before and after the lanes


def both(logits, targets, axis=-1, **how):
    """Loss and gradient on the host; the loss alone has the same bits. The logits are copied, targets lie as given."""
    given = [a if is_on_gpu(a) else on_gpu(a) for a in (logits, targets)]
    alone = cross_entropy(*given, axis, **how)
    loss, gradient = cross_entropy_and_grad(*given, axis, **how)
    assert type(alone) is type(loss) is type(gradient) is type(given[0])
    assert same_bits(host(alone), host(loss))
    return host(loss), host(gradient)


def assert_right(logits, targets, axis=-1, **how):
    found = both(logits, targets, axis, **how)
    exact = loss_oracle.cross_entropy(logits, targets, axis, **how)
    for one, expected, what in zip(found, exact, ("loss", "gradient"), strict=True):
        assert one.dtype == logits.dtype
        assert_close(one, expected, f"{what} of {logits.shape} along {axis}, {targets.dtype}, {how}")
    return found


@every_kind
@every_dtype
def test_every_option(kind, dtype):
    """The seed draws weights, reduction and the rest; each dtype has another layout."""
    seed = DTYPES.index(dtype)
    shape, axis = (((3, 40), 1), ((9, 5), 0), ((2, 7, 3), 1), ((2, 130), 1))[seed]
    case = drawn(seed, dtype, shape, axis, kind)
    options = dict(case.options)
    if "weight" in options:
        options["weight"] = options["weight"].tolist()
    assert_right(case.logits, case.targets, case.axis, **options)


@every_kind
def test_long_lanes_of_every_kind(kind):
    """Those that a block holds, and those that are looked at again: longer ones, and with a focal factor."""
    dense, focal = kind != "indices", "focal" in kind
    held = ["held block"] if dense and not focal else ["block", "dense"] if focal else ["block"]
    for dtype, device, expected in (
        (np.float32, {"multiprocessors": 0}, held),
        (np.float64, {**MANY, "shared": 1000}, ["online", "dense"] if dense else ["online"]),
    ):
        case = drawn(1, dtype, (1, 1100), 1, kind, weight=None, ignore_index=-100)
        with Watched(**device) as kernels:
            assert_right(case.logits, np.abs(case.targets), 1, **case.options)
        assert [name for name in kernels if name not in BESIDE] == 2 * expected


# --- plans --------------------------------------------------------------------------------


def test_every_plan_gives_the_same_bits():
    """Aligned and not."""
    x, target = normal((1, 3 * 512 + 5), np.float64, scale=4.0), np.array([1030])
    bits = []
    for device, offset, alone, expected in (
        (FEW, 0, ["survey", "finish"], ["survey", "finish"]),
        (MANY, 8, ["online"], ["shared"]),
        ({**MANY, "shared": 1000}, 0, ["online"], ["online"]),
        ({**MANY, "shared": 1000, "clusters": True}, 8, ["online"], ["cluster"]),
    ):
        if device.get("clusters") and not HAS_CLUSTERS:
            continue
        with Watched(**device) as kernels:
            bits.append(both(on_gpu(x, offset), target, z_loss=0.1, reduction="sum"))
            here = on_gpu(x, offset)
            loss, same = cross_entropy_and_grad(here, on_gpu(target), z_loss=0.1, reduction="sum", out=here)
            assert same is here and same_bits(host(here), bits[-1][1]) and same_bits(host(loss), bits[-1][0])
        ran = [name for name in kernels if name not in BESIDE]
        assert ran == [*alone, *expected, *expected]
    exact = loss_oracle.cross_entropy(x, target, z_loss=0.1, reduction="sum")
    for one, expected in zip(bits[0], exact, strict=True):
        assert_close(one, expected)
    assert all(same_bits(a, b) for other in bits[1:] for a, b in zip(bits[0], other, strict=True))


@every_dtype
@pytest.mark.parametrize("length", [5, 150, 600])
def test_in_place_and_where_a_row_begins(dtype, length):
    """The target's own logit is kept before its gradient stands there, whichever thread holds it."""
    x, targets = normal((2, length), dtype, scale=4.0), np.array([length - 1, length // 2])
    for label_smoothing in (0.0, 0.1):
        how = {"label_smoothing": label_smoothing, "reduction": "none"}
        loss, gradient = assert_right(x, targets, **how)
        here = on_gpu(x, 8)
        again, _ = cross_entropy_and_grad(here, on_gpu(targets), out=here, **how)
        assert same_bits(host(again), loss) and same_bits(host(here), gradient)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"focal_gamma": 2.0}])
def test_a_lane_a_thread(options):
    """Short lanes that are neighbours: the same bits in any company, wherever the gradient goes."""
    x, targets = normal((19, 40), np.float32), np.arange(40) % 19
    how = {"reduction": "none", **options}
    loss, gradient = assert_right(x, targets, 0, **how)
    for columns in (slice(0, 1), slice(3, 12)):
        out = Gpu(np.zeros((19, columns.stop - columns.start), np.float32, order="F"))
        given = Gpu(x[:, columns]), on_gpu(targets[columns])
        few, _ = cross_entropy_and_grad(*given, 0, out=out, **how)
        assert same_bits(few.values, loss[columns]) and same_bits(out.values, gradient[:, columns])


@every_dtype
@pytest.mark.parametrize("kind", ["indices", "smoothed probabilities", "focal"])
def test_columns(kind, dtype):
    """Neighbouring lanes of more values than their threads hold, in vectors, all options drawn."""
    case = drawn(2, dtype, (70, 16), 0, kind, weight=None)
    with Watched() as kernels:
        assert_right(case.logits, case.targets, 0, **case.options)
    assert [name for name in kernels if name not in BESIDE] == 2 * (["columns"] + ["dense"] * (kind != "indices"))


@pytest.mark.parametrize("options", [{"z_loss": 0.1}, {"label_smoothing": 0.1}])
@pytest.mark.parametrize("length", [40, 70])
def test_columns_and_their_company(length, options):
    """A column's bits depend on nothing beside it: how many there are, whether vectors fit, where its gradient goes."""
    x, targets = normal((length, 24), np.float32, scale=4.0), np.arange(24) * 5 % length
    how = {"reduction": "none", "weight": np.linspace(0.0, 2.0, length).tolist(), **options}
    loss, gradient = assert_right(x, targets, 0, **how)
    for columns, order in ((slice(0, 9), "C"), (slice(3, 16), "F"), (slice(4, 24), "C")):
        here = x[:, columns].copy(order)
        given, out = np.ascontiguousarray(here), on_gpu(np.zeros_like(here)) if order == "C" else seen(here, here)[0]
        found, _ = cross_entropy_and_grad(on_gpu(given), on_gpu(targets[columns]), 0, out=out, **how)
        assert same_bits(host(found), loss[columns]) and same_bits(host(out), gradient[:, columns])
    here = on_gpu(x)
    found, _ = cross_entropy_and_grad(here, on_gpu(targets), 0, out=here, **how)
    assert same_bits(host(found), loss) and same_bits(host(here), gradient)


def test_strange_columns():
    x, targets = normal((40, 10), np.float32), np.full(10, 2)
    x[:, 1], x[4, 2], x[:, 3], x[0, 4], x[2, 5], x[:, 6] = NAN, INF, -INF, -INF, -INF, NAN
    targets[6], targets[7] = -100, 40
    with Watched() as kernels:
        loss, gradient = both(x, targets, 0, reduction="none")
    assert kernels.count("columns") == 2
    for column in (1, 2, 3, 7):
        assert np.isnan(loss[column]) and np.isnan(gradient[:, column]).all()
    assert loss[5] == INF and loss[6] == 0 and (gradient[:, 6] == 0).all()
    right = [0, 4, 5, 8, 9]
    exact = loss_oracle.cross_entropy(x[:, right], targets[right], 0, reduction="none")
    assert_close(loss[right], exact[0])
    assert_close(gradient[:, right], exact[1])


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_strides_and_axes(label_smoothing):
    """Lanes that three strides tell, and others; targets that lie as they like."""
    base = normal((2, 4, 5, 3), np.float32)
    for view in (base[:: -1 if REVERSES else 1, ::2, 1:], np.broadcast_to(base[:1], (2, 4, 5, 3))):
        for axis in (1, -1):
            kept = np.delete(view.shape, axis)
            wide = np.random.default_rng(5).integers(0, view.shape[axis], [2 * n for n in kept])
            how = {"label_smoothing": label_smoothing}
            chosen = wide[::2, ::2, :: -2 if REVERSES else 2]
            expected = loss_oracle.cross_entropy(view, chosen, axis, **how)
            memory = np.zeros(view.shape[::-1], np.float32)
            (given,), (targets,), (out,) = seen(base, view), seen(wide, chosen), seen(memory, memory.T)
            loss, found = cross_entropy_and_grad(given, targets, axis, out=out, **how)
            assert found is out
            assert_close(host(loss), expected[0])
            assert_close(host(out), expected[1])


def test_probabilities_where_the_gradient_goes():
    x, q = normal((3, 20), np.float32), np.random.default_rng(1).random((3, 20), np.float32)
    expected = both(x, q)
    for step in (1, -1) if REVERSES else (1,):
        memory = q[::step].copy()
        room, there = seen(memory, memory, memory[::step])
        cross_entropy_and_grad(on_gpu(x), there, out=room)
        assert same_bits(host(room), expected[1])


# --- reductions and targets ---------------------------------------------------------------


def test_more_lanes_than_a_block_adds_up():
    lanes = CHUNK + 200
    targets = np.arange(lanes) % 3
    targets[::7] = -100
    x, weight = normal((lanes, 3), np.float32), [0.5, 1.0, 2.0]
    loss = host(cross_entropy(on_gpu(x), on_gpu(targets), weight=weight))
    assert_close(loss, loss_oracle.cross_entropy(x, targets, weight=weight)[0])


def test_a_call_of_many_lanes_is_cut(monkeypatch):
    """Kernels divide 32-bit numbers: beyond, a call becomes several launches."""
    monkeypatch.setattr(walk, "MOST_LANES", 8)
    targets = np.arange(30).reshape(5, 6) % 4
    with Watched() as kernels:
        assert_right(normal((5, 4, 6), np.float32), targets, 1, label_smoothing=0.1)
    assert kernels.count("held several") > 2


@pytest.mark.parametrize(
    ("reduction", "options"),
    [("mean", {}), ("none", {"label_smoothing": 0.1}), ("sum", {"z_loss": 0.1}), ("mean", {"focal_gamma": 2.0})],
)
def test_targets_that_count_for_nothing(reduction, options):
    """Whatever stands in their lanes; 0 if there are no others."""
    x = normal((4, 9), np.float32)
    x[0], x[1, 3], x[2] = NAN, INF, -INF
    loss, gradient = both(x, np.full(4, -100), reduction=reduction, **options)
    assert same_bits(loss, np.zeros(4 if reduction == "none" else (), np.float32)) and (gradient == 0).all()
    loss, gradient = both(x, np.array([-100, -100, -100, 5]), reduction=reduction, **options)
    exact = loss_oracle.cross_entropy(x[3:], np.array([5]), reduction=reduction, **options)
    assert_close(loss[3:] if reduction == "none" else loss, exact[0])
    assert_close(gradient[3:], exact[1])
    assert (gradient[:3] == 0).all()


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"focal_gamma": 2.0}])
def test_strange_lanes(options):
    x = normal((6, 9), np.float32)
    x[1], x[2, 4], x[3], x[4, 0], x[5, 2:] = NAN, INF, -INF, -INF, -INF
    loss, gradient = both(x, np.array([2, 2, 2, 2, 0, 1]), reduction="none", **options)
    assert np.isnan(loss[1:4]).all() and np.isnan(gradient[1:4]).all()
    assert loss[4] == INF
    exact = loss_oracle.cross_entropy(x, np.array([2, 2, 2, 2, 0, 1]), reduction="none", **options)
    assert_close(loss, exact[0])
    assert_close(gradient[[0, 4, 5]], loss_oracle.Exact(*(a[[0, 4, 5]] for a in exact[1])))


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_dtypes_of_indices(kind):
    targets = np.array([3, 0, 7]).astype(kind)
    targets[0] = 255 if kind == "uint8" else np.iinfo(kind).max if kind[0] == "u" else -1
    ignored = 2**63 - 2 if kind == "uint64" else int(targets[0])
    targets[0] = ignored
    assert_right(normal((3, 8), np.float32), targets, ignore_index=ignored)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.5])
def test_weights_that_cancel(label_smoothing):
    """The target's weight and the z-loss add up to nothing, and the target still has its share."""
    x = np.array([[-1.0]], np.float32)
    assert_right(x, np.array([0]), z_loss=0.5, label_smoothing=label_smoothing)


@pytest.mark.parametrize(("wrong", "label_smoothing"), [(9, 0.0), (-1, 0.1), (2**40, 0.1), (-(2**63), 0.0)])
def test_targets_out_of_range(wrong, label_smoothing):
    """They cannot be reported without waiting for the device: their lanes are NaN, the others as without them."""
    x, targets = normal((3, 9), np.float32), np.array([2, 2, 3])
    how = {"label_smoothing": label_smoothing, "reduction": "none"}
    expected = both(x, targets, **how)
    targets[1] = wrong
    for one, without in zip(both(x, targets, **how), expected, strict=True):
        assert np.isnan(one[1]).all() and same_bits(one[[0, 2]], without[[0, 2]])
    loss, gradient = both(x, targets, label_smoothing=label_smoothing)
    assert np.isnan(loss) and np.isfinite(gradient[[0, 2]]).all()
    with pytest.raises(IndexError, match=r"targets\[1\] is .*; allowed are 0 to 8"):  # a list is the host's to read
        cross_entropy(on_gpu(x), targets.tolist())


def test_lists_weights_and_scalars():
    x, weight = normal((2, 3), np.float32), np.array([0.5, 2.0, 1.0])
    targets, q = [2, 0], [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]]
    for given, array in ((targets, np.array(targets)), (q, np.array(q))):
        expected = loss_oracle.cross_entropy(x, array, weight=weight)[0]
        for there in (weight.tolist(), on_gpu(weight), on_gpu(weight.astype("f4")[::-1].copy()[::-1])):
            assert_close(host(cross_entropy(on_gpu(x), given, weight=there)), expected)
    lane = on_gpu(x[0])
    assert tuple(cross_entropy(lane, on_gpu(np.array(2)), reduction="none").shape) == ()
    integers = np.arange(6).reshape(2, 3)
    loss, gradient = cross_entropy_and_grad(on_gpu(integers), targets)
    assert host(loss).dtype == host(gradient).dtype == np.float64
    assert_close(host(loss), loss_oracle.cross_entropy(integers.astype(float), np.array(targets))[0])


@every_reduction
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_nothing(shape, reduction):
    loss, gradient = both(np.zeros(shape, np.float32), np.zeros(shape[0], int) - 100, reduction=reduction)
    assert (loss == 0).all() and loss.shape == (shape[:1] if reduction == "none" else ())
    assert gradient.shape == shape


X, T = np.zeros((2, 3), np.float32), np.zeros(2, int)
WRONG = {
    "targets on the CPU": ({"targets": T}, ValueError, ["one device", "targets on the CPU"]),
    "targets on another GPU": ({"targets": Gpu(T, at=1)}, ValueError, ["one device", "GPU 0", "GPU 1"]),
    "too few targets": ({"targets": on_gpu(T[:1])}, ValueError, ["targets", "(2,)", "(1,)"]),
    "floats of indices' shape": ({"targets": on_gpu(T.astype("f4"))}, ValueError, ["float32", "(2, 3)", "(2,)"]),
    "targets of booleans": ({"targets": on_gpu(T.astype(bool))}, TypeError, ["targets", "integers", "bool"]),
    "weight on the CPU": ({"weight": np.ones(3)}, ValueError, ["one device", "weight on the CPU"]),
    "weight of another length": ({"weight": on_gpu(np.ones(2))}, ValueError, ["weight", "(2,)", "3 classes"]),
    "weight complex": ({"weight": on_gpu(np.ones(3, "c8"))}, TypeError, ["weight", "complex64", "numbers"]),
    "weight NaN": ({"weight": [1.0, NAN, 1.0]}, ValueError, ["weight", "finite", "class 1"]),
    "axis": ({"axis": 2}, np.exceptions.AxisError, ["axis 2", "2-D"]),
    "reduction": ({"reduction": "median"}, ValueError, ["reduction", "'median'", "'mean'"]),
    "label_smoothing": ({"label_smoothing": 1.0}, ValueError, ["label_smoothing", "[0, 1)"]),
    "out of another dtype": ({"out": on_gpu(X.astype("f8"))}, TypeError, ["out", "float64", "float32"]),
    "out of another shape": ({"out": on_gpu(X[:1])}, ValueError, ["out", "(1, 3)", "(2, 3)"]),
}


@only_stand_ins
@pytest.mark.parametrize("case", WRONG)
def test_errors(case):
    changed, kind, words = WRONG[case]
    with pytest.raises(kind) as error:
        cross_entropy_and_grad(**{"logits": on_gpu(X), "targets": on_gpu(T), **changed})
    assert all(word in str(error.value) for word in words), str(error.value)
