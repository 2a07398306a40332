# SPDX-License-Identifier: ZPL-2.1
"""Lines of the log as JSON."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from lovely.remotetask.command.logformat import JsonFormatter, log_as_json
from lovely.remotetask.context import running_in

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Let all that is logged be JSON, and return a function that returns what has come."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    hook = threading.excepthook
    log_as_json(handler)
    root = logging.getLogger()
    root.addHandler(handler)
    logging.getLogger("remotetask.job").setLevel(logging.DEBUG)
    logging.getLogger("lovely.remotetask").setLevel(logging.DEBUG)
    yield lambda: [json.loads(line) for line in stream.getvalue().split("\n")[:-1]]
    root.removeHandler(handler)
    logging.captureWarnings(False)
    threading.excepthook = hook


def test_a_line_has_its_time_level_logger_message_and_process(lines: Lines) -> None:
    before = datetime.now(timezone.utc)
    logging.getLogger("shop").warning("%s is\nlow", "tea")
    [line] = lines()
    moment = datetime.fromisoformat(line.pop("time"))
    assert before <= moment <= datetime.now(timezone.utc)
    assert line.pop("pid") > 0
    assert line == {"level": "WARNING", "logger": "shop", "message": "tea is\nlow"}


def test_what_a_message_of_the_package_names_has_fields(lines: Lines) -> None:
    log = logging.getLogger("remotetask.job")
    log.debug("job %s: task %s, attempt %s: %s after %.3f s", "12", "shop.mail", 2, "queued", 0.5)
    logging.getLogger("lovely.remotetask").info("service %s on site %s started", "tasks", "root")
    of_job, of_service = lines()
    assert of_job["message"] == "job 12: task shop.mail, attempt 2: queued after 0.500 s"
    assert [of_job[name] for name in ("job", "task", "attempt")] == [12, "shop.mail", 2]
    assert of_service["service"] == "tasks"


def test_messages_of_others_are_not_read(lines: Lines) -> None:
    logging.getLogger("shop").error("job %s: task %s", 1, 2)
    assert not {"job", "task"} & lines()[0].keys()


def test_a_line_of_a_task_says_which_job_runs(lines: Lines) -> None:
    def work() -> None:
        with running_in(7, lambda: None, "shop.mail", 3):  # type: ignore[arg-type,return-value]
            logging.getLogger("shop").error("out of tea")

    thread = threading.Thread(target=work, name="remotetask-job.shop.tasks")
    thread.start()
    thread.join()
    [line] = lines()
    facts = {name: line[name] for name in ("service", "job", "task", "attempt")}
    assert facts == {"service": "shop.tasks", "job": 7, "task": "shop.mail", "attempt": 3}


def test_a_line_about_another_job_keeps_its_own(lines: Lines) -> None:
    with running_in(7, lambda: None, "shop.mail"):  # type: ignore[arg-type,return-value]
        logging.getLogger("remotetask.job").warning("job %s: undone by %s", 8, "Ada")
    [line] = lines()
    assert line["job"] == 8
    assert "task" not in line


def test_an_exception_is_a_field(lines: Lines) -> None:
    try:
        raise ValueError("tea")
    except ValueError:
        logging.getLogger("shop").exception("failed")
    [line] = lines()
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: tea")


@pytest.mark.parametrize("arguments", [(1, 2), ("one",)])
def test_arguments_that_do_not_fit_lose_no_line(arguments: tuple[Any, ...]) -> None:
    record = logging.LogRecord("shop", logging.INFO, "", 0, "%d", arguments, None)
    assert json.loads(JsonFormatter().format(record))["message"] == "%d"


def test_text_that_is_none_is_told_all_the_same(lines: Lines) -> None:
    logging.getLogger("shop").error("\udc80 \x1b[31m \u2028")
    assert lines()[0]["message"] == "\udc80 \x1b[31m \u2028"


def test_what_ends_a_thread_is_a_line(lines: Lines) -> None:
    def fail() -> None:
        raise ValueError("tea")

    thread = threading.Thread(target=fail, name="kettle")
    thread.start()
    thread.join()
    [line] = lines()
    assert line["message"] == "thread kettle has ended"
    assert "ValueError: tea" in line["exception"]
