"""The kernels of losses: each is taken by the lanes and options that it is for, and is right."""

import numpy as np
import pytest
from grids import no_warnings
from loss_cases import KINDS, Case, assert_right, drawn, every_kind
from loss_oracle import assert_close

from softmax_numba.cpu import loss_sweeps, threads
from softmax_numba.cpu import plan as planning

pytestmark = no_warnings

SWEEPS = {
    "rows": ((9, 100), 1),
    "short": ((300, 7), 1),
    "blocks": ((3, 4097), 1),
    "columns": ((33, 40), 0),
    "middle": ((33, 40), 0),
    "narrow": ((9, 10, 3), 1),
    "deep": ((257, 40), 0),
    "shallow": ((2, 7, 40), 1),
    "long": ((2**18 + 3,), 0),
}


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
            assert kernel.form == ("focal" if focal and dense else "columns" if columns else "rows")


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
        assert with_gradient.kernel.form in (("certain",) if form == "certain" else ("rows", "columns"))


@every_kind
def test_results_past_the_cache(kind, taken):
    """Large gradients are streamed past the caches, to places that no line of memory begins at: in rows and columns."""
    for shape, axis in (((1050, 1001), 1), ((1050, 1001), 0)):
        case = drawn(5, np.float32, shape, axis, kind, reduction="sum")
        room = np.full(1050 * 1001 + 10, 77, np.float32)
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
