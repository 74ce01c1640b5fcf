"""What every test runs under."""

import os

import pytest
from hypothesis import settings

# The first call of a signature compiles, for seconds: a deadline would measure the compiler.
# In continuous integration the examples are the same at every run, so a red run can be repeated.
settings.register_profile("softmax_numba", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("softmax_numba")


@pytest.fixture
def small_caches(monkeypatch):
    """Results of 4 MB count as larger than the caches, however many threads write them."""
    from softmax_numba.cpu import loss_plain, loss_sweeps, plan

    kept = plan.plan, loss_sweeps.arranged, loss_plain._arranged
    monkeypatch.setattr(plan, "SHARED_PAST_CACHE_BYTES", plan.PAST_CACHE_BYTES)
    for decided in kept:
        decided.cache_clear()
    yield
    for decided in kept:
        decided.cache_clear()
