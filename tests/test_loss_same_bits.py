"""The bits of a loss and of its gradient do not depend on company: threads, other lanes, place, layout, or the run."""

import itertools
import threading

import numba
import numpy as np
import pytest
from grids import layouts, no_warnings
from loss_cases import KINDS, PLACES, Case, drawn, every_kind
from oracle import same_bits
from processes import THREADS, run

from softmax_numba import cross_entropy, cross_entropy_and_grad, logsumexp

pytestmark = no_warnings

every_float = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


@pytest.fixture
def threads():
    """Sets the number of threads, and restores it."""
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


def assert_same(case: Case, expected, what="") -> None:
    """Loss, gradient, and the loss in a call of its own."""
    loss, gradient = case.loss_and_gradient()
    assert same_bits(loss, expected[0]), (what, str(case))
    assert same_bits(gradient, expected[1]), (what, str(case))
    assert same_bits(case.loss(), expected[0]), (what, str(case))


@every_kind
@every_float
def test_in_any_layout(kind, dtype):
    """Rows and columns of every order of memory, and targets of another: one result."""
    for shape, axis in (((12, 40), 1), ((40, 12), 0), ((33, 17), 1), ((70, 7), 1), ((9, 257), 1), ((9, 5000), 1)):
        case = drawn(1, dtype, shape, axis, kind)
        expected = case.loss_and_gradient()
        for layout, x in layouts(case.logits).items():
            assert_same(case._replace(logits=x), expected, layout)
        if KINDS[kind].probabilities:
            for layout, q in layouts(case.targets).items():
                assert_same(case._replace(targets=q), expected, layout)
                assert_same(case._replace(targets=q, logits=np.asfortranarray(case.logits)), expected, layout)
        else:
            for how in PLACES:
                assert_same(case.placed(how), expected, how)


@every_float
def test_maps_whose_lines_stand_at_the_same_place_of_every_page(dtype):
    """Numbers of lanes, among them infinite ones and NaN, as of rows: several vectors at once, and what is left."""
    rng = np.random.default_rng(7)
    for length, inner in ((9, 1024), (21, 2048), (48, 1024), (21, 1024 + 512)):
        whole = rng.normal(size=(2, length, 2048)).astype(dtype)
        x, targets = whole[:, :, :inner], rng.integers(0, length, (2, inner))
        x[0, :, 5], x[0, 3, 70], x[0, 2, 90], x[1, 1:, 33], x[1, 4, 500] = -np.inf, np.inf, np.nan, -np.inf, -np.inf
        rows = np.ascontiguousarray(x.transpose(0, 2, 1))
        for dense in (x, np.ascontiguousarray(x)):
            assert same_bits(logsumexp(dense, 1), logsumexp(rows, 2)), (length, inner)
            found = cross_entropy(dense, targets, axis=1, reduction="none")
            assert same_bits(found, cross_entropy(rows, targets, axis=2, reduction="none")), (length, inner)


@every_kind
def test_every_transposition_of_four_dimensions(kind):
    """The classes first, in the middle or last, with lanes before and after them in memory."""
    for axis in range(4):
        case = drawn(2, np.float32, (3, 5, 9, 4), axis, kind)
        expected = case.loss_and_gradient()
        for order in itertools.permutations(range(4)):
            back = np.argsort(order)
            x = np.ascontiguousarray(case.logits.transpose(order)).transpose(back)
            assert_same(case._replace(logits=x), expected, order)
            if KINDS[kind].probabilities:
                q = np.ascontiguousarray(case.targets.transpose(order)).transpose(back)
                assert_same(case._replace(logits=x, targets=q), expected, order)


@every_kind
@every_float
def test_alone_and_among_others(kind, dtype):
    """From a call without threads to one that uses them all, as rows and as columns, at any place."""
    for n in (1, 5, 16, 33, 100, 1000, 4100):
        few = drawn(3, dtype, (3, n), 1, kind, reduction="none", ignore_index=-100)
        alone = [few._replace(logits=few.logits[i], targets=few.targets[i], axis=0) for i in range(3)]
        expected = [case.loss_and_gradient() for case in alone]
        for count in (3, 8, 17, 70, 1000):
            if count * n > 150_000:
                continue
            crowd = drawn(4, dtype, (count, n), 1, kind, reduction="none")._replace(options=few.options)
            places = [0, count // 2, count - 1]
            targets = crowd.targets.astype(few.targets.dtype)
            crowd = crowd._replace(targets=targets if KINDS[kind].probabilities else targets % n)
            crowd.logits[places], crowd.targets[places] = few.logits, few.targets
            for found in (crowd, crowd.placed("F")):
                loss, gradient = found.loss_and_gradient()
                for i, place in enumerate(places):
                    assert same_bits(loss[place], expected[i][0]), (n, count)
                    assert same_bits(gradient[place].copy(), expected[i][1]), (n, count)


SHAPES = (
    ((2000, 64), 1),
    ((2000, 64), 0),
    ((64, 2000), 0),
    ((3, 40_000), 1),
    ((300_000,), 0),
    ((20, 30, 300), 1),
    ((20_000, 7), 1),
    ((2, 7, 9000), 1),
)


@every_kind
def test_any_number_of_threads(kind, threads):
    for shape, axis in SHAPES:
        case = drawn(5, np.float32, shape, axis, kind)
        threads(1)
        expected = case.loss_and_gradient()
        for count in range(2, numba.config.NUMBA_NUM_THREADS + 1):
            threads(count)
            assert_same(case, expected, count)


def test_more_threads_than_a_small_machine_has():
    """In a process that may use 4: 1, 2 and 4 of them, and this process's bits."""
    program = """
    import hashlib, numba, numpy as np
    from softmax_numba import cross_entropy_and_grad
    rng = np.random.default_rng(0)
    x = rng.normal(size=(700, 300)).astype(np.float32)
    lane = rng.normal(size=(300_000,)).astype(np.float32)
    index = rng.integers(0, 300, 700)
    for count in {counts}:
        numba.set_num_threads(count)
        digest = hashlib.sha256()
        for options in ({{}}, {{"label_smoothing": 0.1}}, {{"reduction": "sum", "label_smoothing": 0.1}}):
            for logits, targets in ((x, index), (np.asfortranarray(x), index), (lane, 7)):
                for found in cross_entropy_and_grad(logits, targets, **options):
                    digest.update(np.ascontiguousarray(found).tobytes())
        print(digest.hexdigest())
    """
    lines = run(program.format(counts=(1, 2, THREADS)))
    here = run(program.format(counts=(1,)), NUMBA_NUM_THREADS=1)
    assert len(lines) == 3
    assert set(lines) == set(here)


@every_kind
def test_run_after_run_and_in_another_thread(kind):
    case = drawn(6, np.float32, (300, 400), 1, kind)
    expected = case.loss_and_gradient()
    for _ in range(3):
        assert_same(case, expected)
    found = []
    worker = threading.Thread(target=lambda: found.extend(case.loss_and_gradient()))
    worker.start()
    worker.join()
    assert all(same_bits(a, b) for a, b in zip(found, expected, strict=True))


@every_kind
def test_chunks_of_the_cache_are_not_seen(kind):
    """More lanes than wait in a cache at once, and lanes longer than it holds: those of a call of their own."""
    for shape, axis in (((90, 3000), 1), ((1000, 300), 0), ((3, 100_000), 1), ((20_000, 7), 1), ((7, 20_000), 0)):
        case = drawn(7, np.float32, shape, axis, kind, reduction="none")
        loss, gradient = case.loss_and_gradient()
        lanes = shape[1 - axis]
        for k in (0, lanes // 2, lanes - 1):
            one = [k] if KINDS[kind].probabilities else k
            part = Case(
                np.take(case.logits, [k], 1 - axis),
                np.take(case.targets, one, 1 - axis) if KINDS[kind].probabilities else case.targets[[k]],
                axis,
                case.options,
            )
            alone, alone_gradient = part.loss_and_gradient()
            assert same_bits(loss[[k]], alone)
            assert same_bits(np.take(gradient, [k], 1 - axis), alone_gradient)


@every_float
def test_with_and_without_options_that_change_nothing(dtype):
    """Weights of 1 and an ignore_index that no target has."""
    for shape, axis in (((12, 40), 1), ((40, 12), 0)):
        case = drawn(8, dtype, shape, axis, "indices", weight=None, z_loss=0.0, ignore_index=-100)
        case = case._replace(targets=np.abs(case.targets) % 40)
        expected = case.loss_and_gradient()
        for options in ({"weight": np.ones(40)}, {"ignore_index": 40}, {"z_loss": 0}, {"focal_gamma": 0.0}):
            given = {"reduction": case.options["reduction"], **options}
            found = cross_entropy_and_grad(case.logits, case.targets, axis, **given)
            assert all(same_bits(a, b) for a, b in zip(found, expected, strict=True)), options
