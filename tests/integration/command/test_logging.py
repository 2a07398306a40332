# SPDX-License-Identifier: ZPL-2.1
"""What ``remotetask run`` logs, beside modules that set up the logging too."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

COMMAND = [sys.executable, "-m", "lovely.remotetask.cli"]
SECONDS = 30  # within which a command must have ended

SHOP = """
    from pathlib import Path
    from lovely.remotetask import TaskError
    from lovely.remotetask.task import task

    @task("fail")
    def fail(input):
        raise TaskError("there is no such order")

    @task("end")
    def end(input):
        Path("ended").touch()
"""

#: How a module can set up the logging, and what a line of it begins with.
NONE = "", ""
DISABLES = (
    """
    import logging.config
    logging.config.dictConfig({
        "version": 1,
        "disable_existing_loggers": True,
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "ours"}},
        "formatters": {"ours": {"format": "SHOP %(name)s %(message)s"}},
        "root": {"level": "INFO", "handlers": ["console"]},
    })
    """,
    "SHOP ",
)
ROOT = (
    """
    import logging
    logging.basicConfig(format="SHOP %(name)s %(message)s")
    """,
    "SHOP ",
)
HANDLER = (
    """
    import logging
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("SHOP %(name)s %(message)s"))
    for name in ("lovely", "remotetask.job"):
        logging.getLogger(name).addHandler(handler)
    """,
    "SHOP ",
)
DISABLES_ONLY = (
    """
    import logging.config
    import lovely.remotetask.engine.claim
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})
    """,
    "",
)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A directory with a database, in which a job waits that fails, and one that tells its end."""
    (tmp_path / "shop.py").write_text(dedent(SHOP))
    fill = "import shop, ZODB; from lovely.remotetask import TaskService\n" + dedent("""
        database = ZODB.DB("Data.fs")
        with database.transaction() as connection:
            service = connection.root()["tasks"] = TaskService()
            service.add("fail")
            service.add("end")
        database.close()
    """)
    subprocess.run([sys.executable, "-c", fill], cwd=tmp_path, check=True, timeout=SECONDS)
    return tmp_path


@pytest.fixture
def log_of_run(shop: Path, until: Callable[..., None]) -> Callable[..., list[str]]:
    """Return a function that runs the services until both jobs have ended: what is logged."""

    def log_of_run(*arguments: str) -> list[str]:
        with (
            (shop / "log").open("w+") as log,
            subprocess.Popen(
                [*COMMAND, "run", f"file://{shop}/Data.fs", "--import", "shop", *arguments],
                cwd=shop,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            ) as process,
        ):
            try:
                until((shop / "ended").exists, "the jobs")  # in the order in which they were added
                process.send_signal(signal.SIGTERM)
                assert process.wait(SECONDS) == 0
            finally:
                process.kill()
        return (shop / "log").read_text().splitlines()

    return log_of_run


@pytest.mark.parametrize(
    ("setup", "start"),
    [NONE, DISABLES, DISABLES_ONLY, ROOT, HANDLER],
    ids=["none", "disables", "disables only", "root", "handler"],
)
def test_each_line_is_logged_once_whatever_a_module_has_set_up(
    shop: Path, log_of_run: Callable[..., list[str]], setup: str, start: str
) -> None:
    (shop / "shop.py").write_text(dedent(setup) + dedent(SHOP))
    lines = log_of_run()
    for text in ("service tasks on site root started", "failed: there is no such order"):
        [line] = [line for line in lines if text in line]
        assert line.startswith(start)
        assert start or line.startswith("20")  # the time


def test_a_level_that_a_module_has_set_stays(
    shop: Path, log_of_run: Callable[..., list[str]]
) -> None:
    levels = """
        import logging
        logging.getLogger("lovely.remotetask").setLevel("WARNING")
    """
    (shop / "shop.py").write_text(dedent(levels) + dedent(SHOP))
    assert not [line for line in log_of_run() if "started" in line]


def test_who_asks_for_all_of_it_gets_it(shop: Path, log_of_run: Callable[..., list[str]]) -> None:
    (shop / "shop.py").write_text(dedent(DISABLES[0]) + dedent(SHOP))
    lines = log_of_run("--verbose")
    assert [line for line in lines if line.startswith("SHOP remotetask.job job ")]
