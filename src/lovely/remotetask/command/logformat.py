# SPDX-License-Identifier: ZPL-2.1
"""Lines of a log that programs read: one JSON object each."""

from __future__ import annotations

import json
import logging
import re
import threading
import traceback
from datetime import datetime, timezone
from typing import Any

from lovely.remotetask.context import running_job
from lovely.remotetask.errors import text_of

#: What ``--log-format`` takes.
TEXT, JSON = "text", "json"

#: What the messages of this package name: the word before a placeholder says what it is.
_PLACEHOLDER = re.compile(r"(?:\b(service|job|task|attempt) )?%(?:%|[^a-zA-Z%]*[a-zA-Z])")

#: How the loggers of this package begin, whose messages are such.
_OWN = ("lovely.remotetask", "remotetask.job")


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object, in one line.

    ``time`` (ISO 8601, in UTC), ``level``, ``logger``, ``message`` and ``pid`` are always there;
    ``service``, ``job``, ``task``, ``attempt`` and ``exception`` (the traceback) where they are
    known: by the message of this package, or by the job that runs in the thread that logs.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": _message_of(record),
            "pid": record.process,
            **_facts_of(record),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = _traceback_of(record)
        return json.dumps(line)


def _message_of(record: logging.LogRecord) -> str:
    try:
        return str(record.getMessage())
    except Exception:  # the arguments do not fit: a line that is lost tells nobody
        return text_of(record.msg)


def _traceback_of(record: logging.LogRecord) -> str:
    try:
        return "".join(traceback.format_exception(*record.exc_info)).rstrip()  # type: ignore[misc]
    except Exception:  # of an exception that cannot be printed
        return "(the traceback cannot be printed)"


def _facts_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what is known of the service, the job and the attempt that a line is about."""
    facts: dict[str, Any] = {}
    if record.name.startswith(_OWN):
        facts.update(_named(record))
    if record.thread == threading.get_ident() and (job := running_job()) is not None:
        facts.setdefault("job", job.jobid)
        if facts["job"] == job.jobid:
            facts.update(task=job.task, attempt=job.attempt)
    if "service" not in facts and (service := _service_of(record.threadName or "")):
        facts["service"] = service
    return {name: facts[name] for name in ("service", "job", "task", "attempt") if name in facts}


def _named(record: logging.LogRecord) -> dict[str, Any]:
    """Return what the message of a record names, by the words in it."""
    arguments = record.args
    if not isinstance(arguments, tuple) or not isinstance(record.msg, str):
        return {}
    found = [match for match in _PLACEHOLDER.finditer(record.msg) if match[0][-2:] != "%%"]
    named: dict[str, Any] = {}
    for match, value in zip(found, arguments, strict=False):
        if match[1]:
            named.setdefault(match[1], _plain(match[1], value))
    return named


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, int):
        return value
    text = str(value)
    return int(text) if name in ("job", "attempt") and text.isdecimal() else text


def _service_of(thread_name: str) -> str:
    """Return the service whose thread has this name, or nothing."""
    kind, _, service = thread_name.partition(".")
    return service if kind.startswith("remotetask") else ""


def log_as_json(handler: logging.Handler) -> None:
    """Let a handler write JSON, and what would pass by the log go through it.

    Warnings of Python, and what ends a thread that nobody waits for.
    """
    handler.setFormatter(JsonFormatter())
    logging.captureWarnings(True)
    threading.excepthook = _log_end_of_thread


def _log_end_of_thread(arguments: Any) -> None:
    if arguments.exc_type is SystemExit:
        return
    error = (arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
    name = "" if arguments.thread is None else arguments.thread.name
    logging.getLogger("lovely.remotetask").error("thread %s has ended", name, exc_info=error)
