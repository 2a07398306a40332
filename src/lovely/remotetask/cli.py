# SPDX-License-Identifier: ZPL-2.1
"""The command as a module, where its script is not at hand: ``python -m lovely.remotetask.cli``."""

import sys

from lovely.remotetask.command.main import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
