"""Where the gradient goes: new arrays, out in any layout and overlap, tensors; and what is never written to."""

import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from grids import every_dtype, layouts, no_warnings, normal
from loss_cases import KINDS, PLACES, drawn, every_kind, placed
from oracle import BFLOAT16, same_bits

from softmax_numba import cross_entropy, cross_entropy_and_grad

pytestmark = no_warnings

SHAPES = (((12, 40), 1), ((40, 12), 0), ((3, 40, 9), 1), ((70, 9), 1), ((40,), 0), ((3, 5000), 1))


# --- out --------------------------------------------------------------------------------


@every_kind
def test_out_is_filled_and_given_back(kind):
    for shape, axis in SHAPES:
        case = drawn(0, np.float32, shape, axis, kind)
        expected, expected_gradient = case.loss_and_gradient()
        for how in PLACES:
            out = placed(np.full(shape, 77, np.float32), how)
            loss, gradient = case.loss_and_gradient(out=out)
            assert gradient is out
            assert same_bits(loss, expected)
            assert same_bits(out.astype(np.float32), expected_gradient), (shape, how)


@every_kind
def test_in_place(kind):
    """The logits become their gradient: the same bits, in every layout and in every way through the lanes."""
    for dtype in (np.float32, np.float64):
        for shape, axis in SHAPES:
            case = drawn(1, dtype, shape, axis, kind)
            expected, expected_gradient = case.loss_and_gradient()
            for how in PLACES:
                x = placed(case.logits, how)
                loss, gradient = case._replace(logits=x).loss_and_gradient(out=x)
                assert gradient is x
                assert same_bits(loss, expected)
                assert same_bits(x.astype(dtype), expected_gradient), (shape, how)


def test_in_place_in_16_bits():
    for dtype, shape, axis in (
        (np.dtype(np.float16), (12, 40), 1),
        (np.dtype(np.float16), (8, 40), 0),
        (BFLOAT16, (12, 40), 1),
        (BFLOAT16, (40, 12), 0),
    ):
        case = drawn(2, dtype, shape, axis, "indices")
        expected, expected_gradient = case.loss_and_gradient()
        x = case.logits.copy()
        assert same_bits(case._replace(logits=x).loss_and_gradient(out=x)[0], expected)
        assert same_bits(x, expected_gradient)


@every_kind
def test_strided_out(kind):
    """Only the view's own entries are written: what lies between them stays."""
    for shape, axis in SHAPES[:3]:
        case = drawn(3, np.float32, shape, axis, kind)
        _, expected = case.loss_and_gradient()
        room = np.full([3 * n for n in shape], 77, np.float32)
        for part in (slice(None, None, 3), slice(None, None, -3)):
            view = room[(part,) * len(shape)]
            assert case.loss_and_gradient(out=view)[1] is view
            assert same_bits(view.copy(), expected)
            view[...] = 77
            assert (room == 77).all()
        view = room[tuple(slice(n, 2 * n) for n in shape)]
        case.loss_and_gradient(out=view)
        assert same_bits(view.copy(), expected)
        view[...] = 77
        assert (room == 77).all()


@every_kind
def test_overlap_with_the_logits(kind):
    """out starts before or after the logits in the same memory, or is their transpose or reversal."""
    m = n = 24
    for axis in (0, 1):
        case = drawn(4, np.float32, (m, n), axis, kind)
        expected, expected_gradient = case.loss_and_gradient()
        for shift in (1, 5, n, n + 1, 3 * n):
            for forward in (True, False):
                room = np.zeros(m * n + shift, np.float32)
                x, out = room[: m * n].reshape(m, n), room[shift:].reshape(m, n)
                if forward:
                    x, out = out, x
                x[...] = case.logits
                loss, gradient = case._replace(logits=x).loss_and_gradient(out=out)
                assert gradient is out
                assert same_bits(loss, expected)
                assert same_bits(out, expected_gradient), (axis, shift, forward)
        for view in (lambda a: a.T, lambda a: a[::-1], lambda a: a[:, ::-1], lambda a: a.T[::-1]):
            x = case.logits.copy()
            out = view(x)
            loss, _ = case._replace(logits=x).loss_and_gradient(out=out)
            assert same_bits(loss, expected)
            assert same_bits(out.copy(), expected_gradient)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].probabilities])
def test_overlap_with_probabilities(kind):
    """The gradient may take their place, or some of it, in either order of memory."""
    m = n = 24
    for dtype in (np.float32, np.float64):
        for axis in (0, 1):
            for shift in (0, 1, n, n + 3):
                for order in "CF":
                    case = drawn(5, dtype, (m, n), axis, kind)
                    case = case._replace(targets=np.abs(case.targets.astype(dtype)))
                    expected, expected_gradient = case.loss_and_gradient()
                    room = np.zeros(m * n + shift, dtype)
                    out, targets = (a.reshape((m, n), order=order) for a in (room[: m * n], room[shift:]))
                    targets[...] = case.targets
                    loss, gradient = case._replace(targets=targets).loss_and_gradient(out=out)
                    assert gradient is out
                    assert same_bits(loss, expected)
                    assert same_bits(out, np.asarray(expected_gradient)), (axis, shift, order)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not KINDS[kind].probabilities])
def test_overlap_with_indices(kind):
    """They are read to the last before a gradient is written over them."""
    for axis in (0, 1):
        case = drawn(6, np.float64, (24, 24), axis, kind)
        expected, expected_gradient = case.loss_and_gradient()
        for at in (0, 300, 24 * 23):
            out = np.zeros((24, 24))
            targets = out.reshape(-1)[at : at + 24].view(np.int64)
            targets[:] = case.targets
            loss, _ = case._replace(targets=targets).loss_and_gradient(out=out)
            assert same_bits(loss, expected)
            assert same_bits(out, expected_gradient)


@every_kind
def test_overlap_with_weights(kind):
    case = drawn(7, np.float64, (24, 24), 1, kind, weight=normal(24, np.float64, scale=0.2, shift=1))
    expected, expected_gradient = case.loss_and_gradient()
    out = np.zeros((24, 24))
    out[0] = case.options["weight"]
    loss, _ = case._replace(options=case.options | {"weight": out[0]}).loss_and_gradient(out=out)
    assert same_bits(loss, expected)
    assert same_bits(out, expected_gradient)


def test_nothing_is_written_when_an_argument_is_wrong():
    x = normal((4, 5), np.float32)
    for wrong, exception in (
        ({"targets": [0, 1, 2, 5]}, IndexError),
        ({"targets": [-1, 1, 2, 3]}, IndexError),
        ({"targets": [0, 1, 2]}, ValueError),
        ({"targets": np.zeros((4, 4))}, ValueError),
        ({"weight": np.ones(4)}, ValueError),
        ({"label_smoothing": 1.0}, ValueError),
        ({"reduction": "max"}, ValueError),
        ({"axis": 2}, np.exceptions.AxisError),
    ):
        for out in (np.full((4, 5), 77, np.float32), x):
            before = out.copy()
            with pytest.raises(exception):
                cross_entropy_and_grad(x, **{"targets": [0, 1, 2, 3], **wrong}, out=out)
            assert same_bits(out, before)


# --- new arrays -------------------------------------------------------------------------


@every_kind
def test_the_gradient_is_an_ordinary_new_array(kind):
    """In the memory order of the logits, whose dtype may be of another byte order."""
    for how in PLACES:
        case = drawn(8, np.float32, (12, 40), 1, kind).placed(how)
        loss, gradient = case.loss_and_gradient()
        assert type(gradient) is np.ndarray
        assert gradient.dtype == loss.dtype == np.float32
        assert gradient.flags.writeable and gradient.flags.aligned
        assert not np.shares_memory(gradient, case.logits)
        assert gradient.flags.f_contiguous == (how == "F")


@every_kind
@every_dtype
def test_the_arguments_stay_as_they_were(dtype, kind):
    """Read-only ones too, in any layout, the bytes between their values included."""
    case = drawn(9, np.float32 if dtype.itemsize == 2 else dtype, (6, 40), 1, kind, weight=np.linspace(0, 2, 40))
    for x in layouts(case.logits).values():
        targets = layouts(case.targets)["every other"] if case.targets.ndim == 2 else case.targets
        base = x if not isinstance(x.base, np.ndarray) else x.base
        before = base.tobytes(), targets.tobytes(), case.options["weight"].tobytes()
        for array in (x, targets, case.options["weight"]):
            array.flags.writeable = False
        given = case._replace(logits=x, targets=targets)
        given.loss()
        given.loss_and_gradient()
        assert (base.tobytes(), targets.tobytes(), case.options["weight"].tobytes()) == before


@pytest.mark.parametrize("shape", [(64, 16384), (4, 256, 1024)], ids=str)
def test_nothing_of_the_logits_size_is_allocated(shape):
    """Neither for the loss nor for a gradient that has its place already."""
    x, q = normal(shape, np.float32), np.full(shape, 1 / shape[1], np.float32)
    for targets in (np.zeros(np.delete(shape, 1), np.int64), q):
        for options in ({}, {"label_smoothing": 0.1}):

            def call(out, targets=targets, options=options):
                cross_entropy(x, targets, 1, **options)
                cross_entropy_and_grad(x, targets, 1, **options, out=out)

            out = np.empty_like(x)
            call(out)
            tracemalloc.start()
            try:
                call(out)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert peak < x.nbytes / 8


# --- other libraries' arrays ------------------------------------------------------------


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def to_tensor(torch, values):
    values = np.ascontiguousarray(values)
    if values.dtype == BFLOAT16:
        return torch.from_numpy(values.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(values.copy())


def to_numpy(torch, tensor):
    return tensor.view(torch.int16).numpy().view(BFLOAT16) if tensor.dtype == torch.bfloat16 else tensor.numpy()


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), BFLOAT16], ids=str)
@every_kind
def test_tensors(torch, kind, dtype):
    """Tensors in, tensors out: the loss too, whatever library the other arguments come from."""
    for shape, axis in SHAPES[:2]:
        case = drawn(10, dtype, shape, axis, kind, weight=np.linspace(0, 2, 40))
        expected, expected_gradient = case.loss_and_gradient()
        targets = to_tensor(torch, case.targets)
        tensors = case._replace(logits=to_tensor(torch, case.logits), targets=targets)
        tensors.options["weight"] = torch.from_numpy(case.options["weight"])
        for given in (tensors, tensors._replace(targets=case.targets)):
            loss, gradient = given.loss_and_gradient()
            assert type(loss) is type(gradient) is type(given.loss()) is torch.Tensor
            assert loss.dtype == gradient.dtype == given.logits.dtype
            assert same_bits(to_numpy(torch, loss), np.asarray(expected))
            assert same_bits(to_numpy(torch, gradient), expected_gradient)
        assert type(case._replace(targets=targets).loss()) is type(expected)


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), BFLOAT16], ids=str)
def test_tensors_as_out(torch, dtype):
    case = drawn(11, dtype, (12, 40), 1, "indices")
    _, expected = case.loss_and_gradient()
    x = to_tensor(torch, case.logits)
    out = torch.empty_like(x)
    for given in (x, case.logits):
        assert case._replace(logits=given).loss_and_gradient(out=out)[1] is out
        assert same_bits(to_numpy(torch, out), expected)
        out.zero_()
    array = np.empty_like(case.logits)
    assert case._replace(logits=x).loss_and_gradient(out=array)[1] is array
    assert same_bits(array, expected)
    assert case._replace(logits=x).loss_and_gradient(out=x)[1] is x
    assert same_bits(to_numpy(torch, x), expected)


def test_tensors_in_other_layouts(torch):
    case = drawn(12, np.float32, (3, 40, 9), 1, "indices")
    expected, expected_gradient = case.loss_and_gradient()
    channels_last = torch.from_numpy(case.logits).permute(0, 2, 1).contiguous().permute(0, 2, 1)
    loss, gradient = case._replace(logits=channels_last).loss_and_gradient()
    assert same_bits(loss.numpy(), np.asarray(expected))
    assert same_bits(gradient.numpy(), expected_gradient)
    assert gradient.stride() == channels_last.stride()


def test_a_tensor_that_requires_a_gradient(torch):
    x = torch.zeros(2, 3, requires_grad=True)
    for function in (cross_entropy, cross_entropy_and_grad):
        with pytest.raises(TypeError, match=r"logits.*detach"):
            function(x, [0, 1])
        with pytest.raises(TypeError, match=r"weight.*detach"):
            function(x.detach(), [0, 1], weight=torch.ones(3, requires_grad=True))
        with pytest.raises(TypeError, match=r"targets.*detach"):
            function(x.detach(), torch.ones(2, 3, requires_grad=True))


def test_integer_tensors_are_computed_in_float64(torch):
    loss, gradient = cross_entropy_and_grad(torch.arange(6).reshape(2, 3), torch.tensor([0, 1]))
    assert loss.dtype == gradient.dtype == torch.float64
    assert float(loss) == cross_entropy(np.arange(6.0).reshape(2, 3), [0, 1])


class Exchanged:
    """An array of a library that knows nothing but DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **how):
        return self.array.__dlpack__(**how)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __array_namespace__(self, *, api_version=None):
        return self

    @staticmethod
    def from_dlpack(other):
        return Exchanged(np.from_dlpack(other))


def test_dlpack_objects():
    case = drawn(13, np.float32, (12, 40), 1, "indices", reduction="none", weight=None)
    expected, expected_gradient = case.loss_and_gradient()
    given = case._replace(logits=Exchanged(case.logits.copy()), targets=Exchanged(case.targets.copy()))
    loss, gradient = given.loss_and_gradient()
    assert type(loss) is type(gradient) is Exchanged
    assert same_bits(loss.array, expected)
    assert same_bits(gradient.array, expected_gradient)
    out = Exchanged(np.empty((12, 40), np.float32))
    assert given.loss_and_gradient(out=out)[1] is out
    assert same_bits(out.array, expected_gradient)


def test_scalars_have_the_logits_type():
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
        x = np.zeros((2, 3), dtype)
        for reduction in ("mean", "sum"):
            assert type(cross_entropy(x, [0, 1], reduction=reduction)) is dtype
        assert type(cross_entropy(x, [0, 1], reduction="none")) is np.ndarray
