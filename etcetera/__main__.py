"""``python -m etcetera`` is ``etc``."""

import sys

from etcetera.cli import main

if __name__ == "__main__":
    sys.exit(main())
