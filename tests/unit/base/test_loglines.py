# SPDX-License-Identifier: ZPL-2.1
"""What is logged in a thread, and kept."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from lovely.remotetask.base import loglines
from lovely.remotetask.base.loglines import LogLines, keep_unseen, keeping_lines, last_lines

log = logging.getLogger("shop")


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    log.setLevel(logging.INFO)
    yield
    log.setLevel(logging.NOTSET)


def texts(lines: LogLines) -> list[str]:
    return [line[3] for line in lines.kept()[0]]


def test_what_is_logged_in_the_block_is_kept() -> None:
    lines = LogLines(logging.INFO, "7", 2)
    log.info("before")
    with keeping_lines(lines):
        log.info("%s of %d", "one", 2)
        log.warning("two")
    log.info("after")
    [(time, level, attempt, text), second] = lines.kept()[0]
    assert (type(time), level, attempt, text) == (float, "INFO", 2, "one of 2")
    assert second[1:] == ("WARNING", 2, "two")


def test_lines_below_the_level_are_not_kept() -> None:
    lines = LogLines(logging.WARNING, "7", 1)
    with keeping_lines(lines):
        log.info("quiet")
        log.warning("loud")
    assert texts(lines) == ["loud"]


def test_what_other_threads_log_is_not_kept() -> None:
    lines = LogLines(logging.INFO, "7", 1)
    with keeping_lines(lines):
        thread = threading.Thread(target=log.info, args=("elsewhere",))
        thread.start()
        thread.join()
    assert texts(lines) == []


def test_a_block_within_a_block_keeps_its_own() -> None:
    outer, inner = LogLines(logging.INFO, "7", 1), LogLines(logging.INFO, "8", 1)
    with keeping_lines(outer):
        with keeping_lines(inner):
            log.info("inside")
        with keeping_lines(None):
            log.info("nobody's")
        log.info("outside")
    assert (texts(outer), texts(inner)) == (["outside"], ["inside"])


def test_a_traceback_stands_below_its_message() -> None:
    lines = LogLines(logging.INFO, "7", 1)
    with keeping_lines(lines):
        try:
            raise ValueError("no")
        except ValueError:
            log.exception("it failed")
    [text] = texts(lines)
    assert text.startswith("it failed\nTraceback ")
    assert text.endswith("ValueError: no")


class Hostile:
    def __str__(self) -> str:
        raise SystemExit


def test_arguments_that_cannot_be_printed_do_no_harm() -> None:
    lines = LogLines(logging.INFO, "7", 1)
    log.propagate = False  # what handlers make of it is theirs
    try:
        with keeping_lines(lines):
            log.handle(log.makeRecord("shop", logging.INFO, "", 0, "%s", (Hostile(),), None))
            log.handle(log.makeRecord("shop", logging.INFO, "", 0, "%d %d", ("x",), None))
            log.info("\ud800")
    finally:
        log.propagate = True
    assert texts(lines) == ["%s", "%d %d", "?"]


def test_a_record_without_a_level_is_passed_over() -> None:
    lines = LogLines(logging.INFO, "7", 1)
    with keeping_lines(lines):
        logging.makeLogRecord({"msg": "from elsewhere"})  # as who receives records does
    assert texts(lines) == []


def test_of_many_lines_the_last_ones_are_kept_and_all_are_counted() -> None:
    lines = LogLines(logging.INFO, "7", 1)
    with keeping_lines(lines):
        for number in range(1000):
            log.info("line %d", number)
    kept, count = lines.kept()
    assert (len(kept), count) == (loglines.MAX_LINES, 1000)
    assert kept[-1][3] == "line 999"


def test_long_lines_are_shortened_and_fewer_are_kept() -> None:
    lines = LogLines(logging.INFO, "7", 1)
    with keeping_lines(lines):
        for _ in range(100):
            log.info("x" * 1_000_000)
    assert {len(text) for text in texts(lines)} == {loglines.MAX_MESSAGE}
    assert sum(map(len, texts(lines))) <= loglines.MAX_CHARACTERS


def test_the_last_line_is_always_kept() -> None:
    line = (1.0, "INFO", 1, "x" * (loglines.MAX_CHARACTERS + 1))
    assert last_lines([line, line]) == (line,)


def test_setting_up_logging_anew_takes_nothing_away() -> None:
    lines = LogLines(logging.INFO, "7", 1)
    root = logging.getLogger()
    before = root.handlers[:]
    with keeping_lines(lines):
        root.handlers[:] = []
        log.info("without handlers")
        root.handlers[:] = before
    assert root.handlers == before
    assert texts(lines) == ["without handlers"]


def test_lines_that_a_logger_passes_over_can_be_kept_once() -> None:
    lines = LogLines(logging.INFO, "7", 1)
    with keeping_lines(lines):
        log.setLevel(logging.ERROR)
        keep_unseen(log, logging.INFO, "job 7: %d", (1,))
        log.setLevel(logging.INFO)
        keep_unseen(log, logging.INFO, "seen by its logger", ())
    assert texts(lines) == ["1"]
