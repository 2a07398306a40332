# SPDX-License-Identifier: ZPL-2.1
"""Run the benchmarks: ``python benchmarks/run.py --help``; README.rst tells how to read them.

What is measured is the package in the tree that this file is in, here and in the processes
that are started, whatever else is installed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1] / "src"


def main() -> None:
    """Prepare the paths and the memory that all processes share, and measure."""
    sys.path.insert(0, str(SOURCES))
    os.environ["PYTHONPATH"] = str(SOURCES)
    import campaign  # only now: it needs the path
    import payload

    with tempfile.NamedTemporaryFile(prefix="benchmark-board-") as board:
        os.environ[payload.BOARD_VARIABLE] = board.name
        campaign.main()


if __name__ == "__main__":
    main()
