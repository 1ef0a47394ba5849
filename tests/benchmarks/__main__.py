"""``python tests/benchmarks``; docs/benchmarks.md says what it measures."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python looks in this directory first; what is imported lies beside it, and statedb must come
    # from where it is installed.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from benchmarks.command import main

    sys.exit(main())
