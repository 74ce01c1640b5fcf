"""What every test runs under."""

import os

from hypothesis import settings

# The first call of a signature compiles, for seconds: a deadline would measure the compiler.
# In continuous integration the examples are the same at every run, so a red run can be repeated.
settings.register_profile("softmax_numba", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("softmax_numba")
