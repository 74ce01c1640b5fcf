"""The kernels of losses: each is taken by the lanes and options that it is for, and is right."""

import contextlib
import math

import numpy as np
import pytest
from grids import no_warnings
from loss_cases import KINDS, Case, assert_right, drawn, every_kind
from loss_oracle import assert_close
from oracle import DTYPES

from softmax_numba import cross_entropy_and_grad
from softmax_numba.cpu import loss_plain, loss_sweeps, threads
from softmax_numba.cpu import plan as planning
from softmax_numba.cpu.lane import BLOCK

pytestmark = no_warnings

SWEEPS = {
    "rows": ((9, 100), 1),
    "short": ((300, 9), 1),
    "blocks": ((3, 4097), 1),
    "columns": ((33, 40), 0),
    "middle": ((33, 40), 0),
    "narrow": ((9, 10, 3), 1),
    "deep": ((257, 40), 0),
    "shallow": ((2, 7, 40), 1),
    "long": ((2**18 + 3,), 0),
}
if planning.longest_tiny(4):
    SWEEPS["tiny"] = ((300, 7), 1)


@pytest.fixture
def taken(monkeypatch):
    """How calls are carried out: plans and kernels, as if the machine had two threads."""
    found, call = [], loss_sweeps._call

    def recorded(how, *arguments):
        found.append(how)
        return call(how, *arguments)

    monkeypatch.setattr(loss_sweeps, "_call", recorded)
    monkeypatch.setattr(threads, "in_use", lambda: 2)
    return found


@pytest.mark.parametrize(
    ("shape", "dtype", "size"),
    [((1050, 1001), np.float32, 64), ((70, 4096), np.float64, 8), ((70, 2000), np.float64, 16)],
)
def test_chunks_of_rows_are_multiples_of_what_is_settled_at_once(shape, dtype, size, taken):
    drawn(3, dtype, shape, 1, "indices", z_loss=0.3).loss()
    assert [how.size for how in taken] == [size]


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_sweep_and_every_kernel_is_taken(sweep, taken, monkeypatch, request):
    """Each way to normalise lanes goes with each way through them afterwards."""
    shape, axis = SWEEPS[sweep]
    if sweep in ("columns", "middle"):  # one of the two, by the number of registers
        monkeypatch.setattr(planning, "MIDDLE_TO", 255 if sweep == "middle" else 0)
        for known in (planning.plan, loss_sweeps.arranged):
            known.cache_clear()
            request.addfinalizer(known.cache_clear)
    for kind, (probabilities, smoothed, focal) in KINDS.items():
        case = drawn(3, np.float32, shape, axis, kind, z_loss=0.3)  # others may take the short way
        case = case._replace(targets=case.targets.astype(np.float32) if probabilities else case.targets)
        assert_right(case)
        with_gradient, without = taken
        taken.clear()
        dense, across = probabilities or smoothed, sweep in ("columns", "middle", "deep", "shallow")
        for how in (with_gradient, without):
            assert how.plan.sweep == sweep
            kernel = how.kernel
            assert kernel.gradient == (how is with_gradient)
            assert (kernel.targets != "indices") == probabilities
            assert kernel.dense == dense
            # Without a gradient or a weight for every class, only a number a lane is left to read.
            columns = across and (dense or kernel.gradient)
            form = "focal" if focal and dense else "columns" if columns else "rows"
            if kernel.gradient and not dense:
                form = {"rows": "held", "short": "turned", "tiny": "turned"}.get(sweep, form)
            assert kernel.form == form


@pytest.mark.parametrize("sweep", SWEEPS)
def test_targets_alone_are_picked(sweep, taken):
    """Where nothing else counts, from lanes in any memory order; of a single class nothing need be known."""
    shape, axis = SWEEPS[sweep]
    for of_shape, form in ((shape, "picked"), (tuple(1 if i == axis else n for i, n in enumerate(shape)), "certain")):
        plain = {"z_loss": 0.0, "weight": None, "ignore_index": -100}
        case = drawn(3, np.float32, of_shape, axis, "indices", **plain).placed("unaligned")
        assert_right(case)
        with_gradient, without = taken
        taken.clear()
        assert without.kernel.form == form
        assert with_gradient.kernel.form in (
            ("certain",) if form == "certain" else ("held", "turned", "rows", "columns")
        )


@every_kind
def test_results_past_the_cache(kind, taken):
    """Large gradients are streamed past the caches, to places that no line of memory begins at: in rows and columns."""
    for shape, axis in (((1050, 1001), 1), ((1050, 1001), 0), ((10500, 101), 1), ((70000, 17), 1), ((540, 2101), 1)):
        case = drawn(5, np.float32, shape, axis, kind, reduction="sum")
        room = np.full(math.prod(shape) + 10, 77, np.float32)
        gradient = room[3:-7].reshape(shape)
        case.loss_and_gradient(out=gradient)
        assert taken[-1].past_cache
        assert (room[:3] == 77).all() and (room[-7:] == 77).all()
        assert np.array_equal(gradient, case.placed("unaligned").loss_and_gradient()[1])
        for first, last in ((0, 5), (520, 530), (shape[1 - axis] - 3, shape[1 - axis])):
            part = np.take(case.logits, range(first, last), 1 - axis)
            targets = np.take(case.targets, range(first, last), 1 - axis if KINDS[kind].probabilities else 0)
            few = Case(part, targets, axis, case.options)
            assert_close(np.take(gradient, range(first, last), 1 - axis), few.exact()[1], str(case))


def equal(a, b):
    """Whether two results are the same to the bit, but for what a NaN carries."""
    for pair in zip(a, b, strict=True):
        x, y = (np.where(np.isnan(each), 77, each).astype(np.float64) for each in pair)
        if not (np.array_equal(x, y) and np.array_equal(np.signbit(x), np.signbit(y))):
            return False
    return True


@pytest.fixture
def one_by_one(monkeypatch):
    """`with one_by_one():` gradients along rows take a second look, at one row after the other."""
    known = loss_sweeps.arranged, loss_plain.prepared

    def forget():
        for each in known:
            each.cache_clear()

    @contextlib.contextmanager
    def slowly():
        with monkeypatch.context() as here:
            here.setattr(loss_sweeps, "FOR_ROWS", {})
            forget()
            yield
        forget()

    return slowly


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_in_one_look_have_the_bits_of_others(dtype, one_by_one):
    """At lengths around whole vectors, with lanes that have no gradient, no loss or no number, alone and among many,
    also where rows stand apart and where the gradient replaces the logits."""
    rng = np.random.default_rng(0)
    plain, others = {}, ({"z_loss": 0.1, "reduction": "none"}, {"focal_gamma": 2.0}, {"weight": True})

    def results(x, targets, options):
        in_place = x.copy()
        taken = [cross_entropy_and_grad(each, targets, **options) for each in (x, apart(x), x[::-1][::-1])]
        return [*taken, cross_entropy_and_grad(in_place, targets, out=in_place, **options)]

    for length in (2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 48, 64, 65, 100, 513, BLOCK - 1, BLOCK, BLOCK + 1):
        for rows in (1, 3, 4, 5, 17, 70):
            x = (3 * rng.standard_normal((rows, length))).astype(dtype)
            targets = np.where(rng.random(rows) < 0.2, -100, rng.integers(0, length, rows))
            if rows > 4:
                x[1, 0], x[2, -1], x[3] = np.nan, np.inf, -np.inf
            for options in (plain, *others) if rows in (5, 70) else (plain,):
                if "weight" in options:
                    options = {"weight": np.linspace(0, 1, length)}
                found = results(x, targets, options)
                with one_by_one():
                    expected = cross_entropy_and_grad(x, targets, **options)
                for each in found:
                    assert equal(each, expected), (length, rows, options)


def apart(x):
    """The same rows with something between them."""
    room = np.full((len(x), x.shape[1] + 3), 77).astype(x.dtype)
    room[:, : x.shape[1]] = x
    return room[:, : x.shape[1]]
