"""``python -m statedb``."""

import sys

from statedb.cli import main

sys.exit(main())
