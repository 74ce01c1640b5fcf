"""SciPy's three functions, and what is to be like theirs."""

import numpy as np
import scipy.special


def theirs(name, *args, **how):
    with np.errstate(all="ignore"):
        return getattr(scipy.special, name)(*args, **how)


def assert_like_scipys(ours, expected, rtol=None):
    """Same type, dtype, shape and special values; values as close as SciPy's own accuracy lets them be."""
    assert type(ours) is type(expected)
    assert ours.dtype == expected.dtype
    assert ours.shape == expected.shape
    if rtol is None:
        rtol = 32 * float(np.finfo(ours.dtype).eps)
    np.testing.assert_allclose(ours, expected, rtol=rtol, atol=rtol)
