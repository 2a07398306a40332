# SPDX-License-Identifier: ZPL-2.1
"""What a machine lacks is a reason to skip a test, but not where everything is required."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LACKING = {
    "a test": "import pytest\n\ndef test_it():\n    pytest.importorskip('no_such_module')\n",
    "a module": "import pytest\n\npytest.importorskip('no_such_module')\n\ndef test_it(): pass\n",
    "a mark": "import pytest\n\n@pytest.mark.skipif(True, reason='none')\ndef test_it(): pass\n",
    "a need": "def test_it(need):\n    need(False, 'there is no server', 'get one')\n",
}


@pytest.mark.parametrize("what", LACKING)
def test_a_test_is_skipped_only_where_not_all_is_required(what: str, tmp_path: Path) -> None:
    (tmp_path / "test_lacking.py").write_text(LACKING[what])
    plain = ["-q", "-p", "no:xdist", "-o", "addopts=", "-p", "conftest", "-c", "pyproject.toml"]
    command = [sys.executable, "-m", "pytest", *plain, "--rootdir", str(ROOT), str(tmp_path)]
    ends = {
        required: subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "REMOTETASK_REQUIRE_ALL": required},
            capture_output=True,
            text=True,
        )
        for required in ("0", "1")
    }
    assert ends["0"].returncode in (0, pytest.ExitCode.NO_TESTS_COLLECTED), ends["0"].stdout
    assert "1 skipped" in ends["0"].stdout
    assert ends["1"].returncode in (1, pytest.ExitCode.INTERRUPTED), ends["1"].stdout
    assert "Skipped: " in ends["1"].stdout
