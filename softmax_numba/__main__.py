"""``python -m softmax_numba``: the same as the command ``softmax-numba``."""

import sys

from softmax_numba.cli import main

if __name__ == "__main__":
    sys.exit(main())
