"""Other libraries' arrays: the caller's own type comes back, without a copy and without importing anything."""

import subprocess
import sys
import tracemalloc
import types

import ml_dtypes
import numpy as np
import pytest
from grids import FUNCTIONS, MAPS, every_function, every_map, no_warnings, normal
from oracle import BFLOAT16, assert_accurate, same_bits

pytestmark = no_warnings

DTYPE_NAMES = ["float16", "bfloat16", "float32", "float64"]
every_name = pytest.mark.parametrize("dtype", DTYPE_NAMES)


# PyTorch


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def to_numpy(tensor) -> np.ndarray:
    if str(tensor.dtype) == "torch.bfloat16":
        return tensor.view(dtype=sys.modules["torch"].int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def tensor_of(torch, values):
    if values.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(values.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(values.copy())


@every_function
@every_name
def test_tensors_come_back_as_tensors(torch, name, dtype):
    values = normal((5, 40), np.dtype(dtype))
    x = tensor_of(torch, values)
    for axis in (0, 1, -1, None):
        y = FUNCTIONS[name](x, axis)
        assert type(y) is torch.Tensor
        assert y.dtype == x.dtype
        assert y.device.type == "cpu"
        assert same_bits(to_numpy(y), FUNCTIONS[name](values, axis))
    assert same_bits(to_numpy(x), values)
    for dtype_out in DTYPE_NAMES:
        y = FUNCTIONS[name](x, dtype=dtype_out)
        assert y.dtype == getattr(torch, dtype_out)
        assert same_bits(to_numpy(y), FUNCTIONS[name](values, dtype=dtype_out))


@every_function
@every_name
def test_a_class_made_from_a_tensor(torch, name, dtype):
    """Another library's own, as a subclass is: a plain tensor comes back."""

    class Picture(torch.Tensor):
        pass

    values = normal((5, 40), np.dtype(dtype))
    y = FUNCTIONS[name](tensor_of(torch, values).as_subclass(Picture))
    assert type(y) is torch.Tensor
    assert same_bits(to_numpy(y), FUNCTIONS[name](values))


@every_function
@every_name
def test_dtype_of_pytorch(torch, name, dtype):
    values = normal((5, 40), np.float32)
    for x in (values, torch.from_numpy(values)):
        y = FUNCTIONS[name](x, dtype=getattr(torch, dtype))
        assert type(y) is type(x)
        assert same_bits(y if x is values else to_numpy(y), FUNCTIONS[name](values, dtype=dtype))
    with pytest.raises(TypeError, match="float64"):
        FUNCTIONS[name](values, dtype=torch.int32)


@every_map
@every_name
def test_a_tensor_whose_sign_is_still_to_be_changed(torch, name, dtype):
    """As the imaginary part of a conjugate is: read with its sign, refused as out, which is memory to write to."""
    values = normal((5, 40), np.dtype(dtype))
    turned = torch._neg_view(tensor_of(torch, -values))
    assert same_bits(to_numpy(MAPS[name](turned)), MAPS[name](values))
    with pytest.raises(ValueError, match="negative bit"):
        MAPS[name](values, out=turned)
    assert same_bits(to_numpy(turned.resolve_neg()), values)


@every_map
@every_name
def test_out_tensor(torch, name, dtype):
    values = normal((5, 40), np.dtype(dtype))
    x = tensor_of(torch, values)
    expected = MAPS[name](values)
    out = torch.empty_like(x)
    where_it_lies = out.data_ptr()
    assert MAPS[name](x, out=out) is out
    assert out.data_ptr() == where_it_lies
    assert same_bits(to_numpy(out), expected)
    assert MAPS[name](x, out=x) is x
    assert same_bits(to_numpy(x), expected)
    with pytest.raises(ValueError, match="shape"):
        MAPS[name](x, out=torch.empty((40, 5), dtype=x.dtype))
    with pytest.raises(TypeError, match=dtype):
        MAPS[name](x, out=torch.empty((5, 40), dtype=torch.float64 if dtype != "float64" else torch.float32))


@every_name
def test_logsumexp_of_tensors(torch, dtype):
    values = normal((5, 40), np.dtype(dtype))
    x = tensor_of(torch, values)
    out = torch.empty(5, dtype=x.dtype)
    assert FUNCTIONS["logsumexp"](x, out=out) is out
    assert same_bits(to_numpy(out), FUNCTIONS["logsumexp"](values))
    assert FUNCTIONS["logsumexp"](x, keepdims=True).shape == (5, 1)
    assert FUNCTIONS["logsumexp"](x, None).ndim == 0


@every_map
@every_name
def test_tensors_are_not_copied(torch, name, dtype):
    """A call into a given tensor allocates no array of the tensor's size, only what each thread works in."""
    x = torch.randn((256, 16384)).to(getattr(torch, dtype))
    out = torch.empty_like(x)
    MAPS[name](x, out=out)
    tracemalloc.start()
    try:
        MAPS[name](x, out=out)
        into_out = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        y = MAPS[name](x)
        fresh = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    size = x.numel() * x.element_size()
    assert into_out < size / 8
    assert fresh < size * 1.125
    assert torch.equal(y, out)


@every_function
def test_tensors_in_any_layout(torch, name):
    base = torch.randn(6, 8, 10)
    for x in (
        base.transpose(0, 2),
        base[:, ::2],
        base[2],
        base.permute(1, 2, 0)[::3],
        base[:, :1].expand(6, 8, 10),
    ):
        for axis in (0, -1, None):
            expected = FUNCTIONS[name](np.ascontiguousarray(x.numpy()), axis)
            assert same_bits(to_numpy(FUNCTIONS[name](x, axis)), expected)
    out = torch.empty(10, 8, 6).transpose(0, 2)
    if name != "logsumexp":
        assert FUNCTIONS[name](base, out=out) is out
        assert same_bits(out.numpy().copy(), FUNCTIONS[name](base.numpy()))


@every_map
def test_where_and_temperature_as_tensors(torch, name):
    x = torch.randn(5, 40)
    where = torch.rand(5, 40) < 0.5
    t = torch.tensor([[0.5], [1.0], [2.0], [3.0], [0.1]], dtype=torch.float64)
    y = MAPS[name](x, where=where, temperature=t)
    assert type(y) is torch.Tensor
    assert same_bits(y.numpy(), MAPS[name](x.numpy(), where=where.numpy(), temperature=t.numpy()))


@every_function
def test_integer_tensors(torch, name):
    y = FUNCTIONS[name](torch.arange(6).reshape(2, 3))
    assert y.dtype == torch.float64
    assert same_bits(y.numpy(), FUNCTIONS[name](np.arange(6).reshape(2, 3)))
    with pytest.raises(TypeError, match="complex64"):
        FUNCTIONS[name](torch.zeros(3, dtype=torch.complex64))


@every_function
def test_a_tensor_that_requires_grad(torch, name):
    """Its gradient would be lost silently; the error says what to do."""
    x = torch.zeros(2, 3, requires_grad=True)
    with pytest.raises((TypeError, ValueError), match="detach"):
        FUNCTIONS[name](x)
    assert type(FUNCTIONS[name](x.detach())) is torch.Tensor
    with torch.no_grad(), pytest.raises((TypeError, ValueError), match="detach"):
        FUNCTIONS[name](x)


@every_function
def test_tensors_of_no_dimension_and_empty_ones(torch, name):
    y = FUNCTIONS[name](torch.tensor(2.5))
    assert type(y) is torch.Tensor
    assert y.shape == ()
    assert float(y) == {"softmax": 1, "log_softmax": 0, "logsumexp": 2.5}[name]
    y = FUNCTIONS[name](torch.zeros(0, 3))
    assert y.shape == ((0,) if name == "logsumexp" else (0, 3))


@every_map
def test_arrays_into_tensors_and_back(torch, name):
    """Both live in the same memory: the caller gets the out they gave."""
    values = normal((4, 5), np.float32)
    expected = MAPS[name](values)
    tensor, array = torch.empty(4, 5), np.empty((4, 5), np.float32)
    assert MAPS[name](values, out=tensor) is tensor
    assert same_bits(tensor.numpy(), expected)
    assert MAPS[name](torch.from_numpy(values), out=array) is array
    assert same_bits(array, expected)


@every_function
def test_tensors_off_the_cpu(torch, name):
    with pytest.raises((TypeError, ValueError), match="meta"):
        FUNCTIONS[name](torch.zeros(3, device="meta"))


def test_nothing_else_is_imported():
    """Neither to find out what an array is nor to compute; Numba itself may use SciPy, so that one is withheld."""
    code = """
import sys
sys.modules["scipy"] = None  # importing it fails
import numpy as np
import softmax_numba, softmax_numba.special

class Mine:
    def __array__(self, dtype=None, copy=None):
        return np.ones(3)

for f in (softmax_numba.softmax, softmax_numba.log_softmax, softmax_numba.logsumexp):
    for x in (np.ones(3), [1.0, 2.0], Mine(), np.ma.ones(3)):
        f(x)
softmax_numba.special.softmax([1.0])
softmax_numba.special.logsumexp([1j], b=[-1.0], return_sign=True)
loaded = {"torch", "cupy", "jax", "matplotlib", "pandas", "rich"} & set(sys.modules)
raise SystemExit(f"imported: {loaded}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


# Anything with __dlpack__


class Exchanged:
    """An array of a library that knows nothing but DLPack."""

    def __init__(self, array):
        self.array = array
        self.exports = 0

    def __dlpack__(self, **how):
        self.exports += 1
        return self.array.__dlpack__(**how)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __array_namespace__(self, *, api_version=None):
        return types.SimpleNamespace(from_dlpack=from_dlpack)


def from_dlpack(other, **how) -> Exchanged:
    return Exchanged(np.from_dlpack(other, **how))


@every_function
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_dlpack_objects_come_back_as_their_own_type(name, dtype):
    values = normal((4, 30), dtype)
    x = Exchanged(values.copy())
    for axis in (0, 1, None):
        y = FUNCTIONS[name](x, axis)
        assert type(y) is Exchanged
        expected = FUNCTIONS[name](values, axis)
        assert same_bits(np.asarray(y.array), expected)
    assert x.exports == 3
    assert same_bits(x.array, values)


class OfBfloat16:
    """An array of a library whose bfloat16 DLPack does not carry, as JAX's."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **how):
        raise BufferError("Unsupported dtype in DLTensor.")

    def __dlpack_device__(self):
        return (1, 0)

    def __array__(self, dtype=None, copy=None):
        return self.array if dtype is None else self.array.astype(dtype)

    def __array_namespace__(self, *, api_version=None):
        def refused(array):
            raise AssertionError("it has no way for this dtype")

        return types.SimpleNamespace(from_dlpack=refused, asarray=OfBfloat16)


@every_function
def test_a_dtype_that_dlpack_does_not_carry(name):
    values = normal((4, 30), BFLOAT16)
    y = FUNCTIONS[name](OfBfloat16(values))
    assert type(y) is OfBfloat16
    assert same_bits(y.array, np.asarray(FUNCTIONS[name](values)))
    with pytest.raises(TypeError, match="dtype float8_e4m3fn of x is not supported"):
        FUNCTIONS[name](OfBfloat16(np.ones(3, ml_dtypes.float8_e4m3fn)))


@every_map
def test_dlpack_out(name):
    values = normal((4, 30), np.float32)
    out = Exchanged(np.empty((4, 30), np.float32))
    assert MAPS[name](Exchanged(values.copy()), out=out) is out
    assert same_bits(out.array, MAPS[name](values))
    x = Exchanged(values.copy())
    assert MAPS[name](x, out=x) is x
    assert same_bits(x.array, MAPS[name](values))


@every_function
def test_objects_with_array_alone_give_numpy_arrays(name):
    class Frame:
        def __array__(self, dtype=None, copy=None):
            return values if dtype is None else values.astype(dtype)

    values = normal((4, 30), np.float32)
    y = FUNCTIONS[name](Frame())
    assert type(y) is np.ndarray
    assert same_bits(y, FUNCTIONS[name](values))
    assert_accurate(name, y, values)


# What lies on a GPU


class OnCuda:
    """Looks like a CUDA library's array: device type 2, and nothing that the host may read."""

    shape, dtype, ndim = (2, 3), np.dtype(np.float32), 2

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **how):
        raise AssertionError("a CUDA array must not be exported to the host")


class OnCudaOfOld:
    """As Numba's device arrays before DLPack."""

    @property
    def __cuda_array_interface__(self):
        return {"shape": (2, 3), "typestr": "<f4", "data": (4096, False), "version": 3, "strides": None}


@every_function
@pytest.mark.parametrize("kind", [OnCuda, OnCudaOfOld])
def test_a_gpu_array_without_gpu_support(name, kind):
    with pytest.raises(TypeError) as error:
        FUNCTIONS[name](kind())
    assert 'pip install "softmax-numba[cuda]"' in str(error.value)


@every_function
@pytest.mark.parametrize("kind", [OnCuda, OnCudaOfOld])
def test_devices_do_not_mix(name, kind):
    x = np.zeros((2, 3), np.float32)
    for how in ({"out": kind()}, {"where": kind()}) + (() if name == "logsumexp" else ({"temperature": kind()},)):
        with pytest.raises(ValueError, match="device"):
            FUNCTIONS[name](x, **how)
