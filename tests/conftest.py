"""What every test runs under, and in which order."""

import os

import pytest
from hypothesis import settings

# The first call of a signature compiles, for seconds: a deadline would measure the compiler.
# In continuous integration the examples are the same at every run, so a red run can be repeated.
settings.register_profile("softmax_numba", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("softmax_numba")

# Kernels that these compile whether or not they are on disk are there for all that come after; and the longest tests,
# each one process that takes as long as hundreds of others, do not leave one worker alone with the last of them.
FIRST = ("tests/test_machine_code.py::", "tests/test_gpu.py::test_in_the_simulator")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))


@pytest.fixture(autouse=True, scope="session")
def after_the_first_call():
    """A process's first call has no door made (entering.py); which test that is would be chance."""
    from softmax_numba.cpu import door, entering, vjp_door

    entering.is_worth_making(*door.ENTRY)
    entering.is_worth_making(*vjp_door.ENTRY)
