"""Libraries that are compared where they are asked for and installed."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from softmax_numba.bench.jobs import Job, Peer
from softmax_numba.bench.onnx import model
from softmax_numba.bench.workloads import OPS

__all__ = ["OTHERS"]

Array = np.ndarray[Any, Any]
Refusal = Callable[[str, np.dtype[Any]], str | None]


def _only(library: str, *dtypes: str, ops: tuple[str, ...] = OPS) -> Refusal:
    """Refuses every other op and dtype."""

    def unsupported(op: str, dtype: np.dtype[Any]) -> str | None:
        if op not in ops:
            return f"{library} has no {op}"
        return None if dtype.name in dtypes else f"{library}'s {op} takes no {dtype.name}"

    return unsupported


def _bind_jax(job: Job) -> Callable[[], Any]:
    """Compiled by jit; its arrays cannot be changed, so that the input is a copy, made here."""
    jax = import_module("jax")
    jax.config.update("jax_enable_x64", True)
    function, axis = getattr(jax.nn, job.op), job.axis
    compiled = jax.jit(lambda x: function(x, axis=axis))
    x = jax.numpy.asarray(job.x)
    return lambda: compiled(x).block_until_ready()


def _bind_onnx(job: Job) -> Callable[[], Any]:
    """Input and result stay where they are."""
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = job.threads
    x, out, dtype = job.x, job.out, job.x.dtype
    if not x.flags.c_contiguous:
        raise ValueError("ONNX Runtime takes arrays in one block only")
    text = model(job.op, dtype.name, x.shape, out.shape, job.axis)
    session = runtime.InferenceSession(text, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_input("x", "cpu", 0, dtype.type, x.shape, x.ctypes.data)
    binding.bind_output("y", "cpu", 0, dtype.type, out.shape, out.ctypes.data)
    return lambda: session.run_with_iobinding(binding)


def _bind_sklearn(job: Job) -> Callable[[], Any]:
    """Rows of a matrix are all it knows: another axis is brought there and back, as its user would."""
    softmax = import_module("sklearn.utils.extmath").softmax
    x, axis = job.x, job.axis

    def call() -> Array:
        moved = np.moveaxis(x, axis, -1)
        result: Array = softmax(moved.reshape(-1, moved.shape[-1]))
        return np.moveaxis(result.reshape(moved.shape), -1, axis)

    return call


def _bind_numexpr(job: Job) -> Callable[[], Any]:
    numexpr = import_module("numexpr")
    numexpr.set_num_threads(job.threads)
    x, axis, out, evaluate = job.x, job.axis, job.out, numexpr.evaluate

    def softmax() -> None:
        evaluate("exp(x - m)", {"x": x, "m": x.max(axis=axis, keepdims=True)}, out=out)
        evaluate("y / s", {"y": out, "s": out.sum(axis=axis, keepdims=True)}, out=out)

    def log_softmax() -> None:
        largest = x.max(axis=axis, keepdims=True)
        powers = evaluate("exp(x - m)", {"x": x, "m": largest})
        evaluate("x - m - log(s)", {"x": x, "m": largest, "s": powers.sum(axis=axis, keepdims=True)}, out=out)

    def logsumexp() -> None:
        largest = x.max(axis=axis, keepdims=True)
        powers = evaluate("exp(x - m)", {"x": x, "m": largest})
        evaluate("m + log(s)", {"m": largest.squeeze(axis), "s": powers.sum(axis=axis)}, out=out)

    return {"softmax": softmax, "log_softmax": log_softmax, "logsumexp": logsumexp}[job.op]


OTHERS = (
    Peer(
        name="jax",
        title="JAX",
        distribution="jax",
        module="jax",
        expression="jax.jit(jax.nn.softmax)(x).block_until_ready()",
        threading="all of the machine: XLA has no number for a call; no out=, so every result is a new array",
        bind=_bind_jax,
        writes_out=False,
        unsupported=_only("JAX", "float32", "float64", "float16", "bfloat16"),
    ),
    Peer(
        name="onnxruntime",
        title="ONNX Runtime",
        distribution="onnxruntime",
        module="onnxruntime",
        expression="session.run_with_iobinding(binding), a model of one Softmax",
        threading="the same number as softmax-numba is given",
        bind=_bind_onnx,
        writes_out=True,
        unsupported=_only("ONNX Runtime", "float32", "float64"),
    ),
    Peer(
        name="scikit-learn",
        title="scikit-learn",
        distribution="scikit-learn",
        module="sklearn",
        expression="sklearn.utils.extmath.softmax(x)",
        threading="one: it is NumPy's; no out=, so every result is a new array",
        bind=_bind_sklearn,
        writes_out=False,
        unsupported=_only("scikit-learn", "float32", "float64", "float16", ops=("softmax",)),
    ),
    Peer(
        name="numexpr",
        title="numexpr",
        distribution="numexpr",
        module="numexpr",
        expression='evaluate("exp(x - m)", out=out); evaluate("y / s", out=out), maximum and sum by NumPy',
        threading="the same number as softmax-numba is given, for what it evaluates",
        bind=_bind_numexpr,
        writes_out=True,
        unsupported=_only("numexpr", "float32", "float64"),
    ),
)
