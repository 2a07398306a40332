# SPDX-License-Identifier: ZPL-2.1
"""Who has not installed the extra."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
sys.modules["pymongo"] = None
import lovely.remotetask.remote.processor, lovely.remotetask.remote.testing
try:
    import lovely.remotetask.remote.mongo
except ImportError as error:
    print(error)
"""


def test_all_but_the_processor_on_mongodb_can_be_imported_without_pymongo() -> None:
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "pip install 'lovely.remotetask[mongo]'" in found.stdout
