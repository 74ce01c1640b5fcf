"""The sweep over lanes of a single value: what becomes of it is known without a sum."""

from softmax_numba.cpu.arrays import place
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.lane import Operation
from softmax_numba.cpu.memory import fence, number_at, put
from softmax_numba.cpu.stretch import stretch_map


def single_values(operation: Operation, compute: type):
    """Compiles the sweep over lanes ``first`` to ``last`` of arrays (outer, 1, inner). There is no mask, and no
    temperature."""
    value = operation.single
    map_to = stretch_map(value)

    def sweep(x, mask, temperature, out, first, last, past_cache):
        inner = x.shape[2]
        if inner == 1 and x.strides[0] == x.itemsize and out.strides[0] == out.itemsize:
            map_to(place(x, first, 0, 0), last - first, place(out, first, 0, 0), None, None, past_cache)
            if past_cache:
                fence()
        else:
            for lane in range(first, last):
                o = lane // inner
                j = lane - o * inner
                put(place(out, o, 0, j), 0, value(number_at(place(x, o, 0, j), 0), None, None))

    return compiled(sweep, f"{operation.name}_single", body=True)
