# SPDX-License-Identifier: ZPL-2.1
"""The forms of what is sent and answered, as JSON Schema."""

from __future__ import annotations

from typing import Any

from lovely.remotetask.engine.finding import MAX_PAGE_SIZE
from lovely.remotetask.engine.following import MAX_AFTER
from lovely.remotetask.engine.options import MAX_NAME, MAX_NOTE, MAX_PRIORITY
from lovely.remotetask.errors import MAX_WAIT_SECONDS
from lovely.remotetask.interfaces import FINAL_STATUSES, STATUSES
from lovely.remotetask.schedule import MAX_NUMBERS, MAX_TEXT
from lovely.remotetask.store.tree import MAX_JOB_ID

Schema = dict[str, Any]

#: No more jobs are added at once.
MAX_MANY = 1_000

STRING: Schema = {"type": "string"}
TEXT: Schema = {"type": ["string", "null"]}
TIME: Schema = {"type": "string", "format": "date-time"}
TIME_OR_NULL: Schema = {"type": ["string", "null"], "format": "date-time"}
NUMBER_OR_NULL: Schema = {"type": ["number", "null"]}
INTEGER_OR_NULL: Schema = {"type": ["integer", "null"]}
COUNT: Schema = {"type": "integer", "minimum": 0}
MANY: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_JOB_ID}
FLAG: Schema = {"type": "boolean"}
STATUS: Schema = {"type": "string", "enum": list(STATUSES)}
ANY: Schema = {}
NAME: Schema = {"type": "string", "minLength": 1, "pattern": r"^[^\x00]+$"}
ID: Schema = {
    "type": ["integer", "string"],
    "description": "A number; of a remote processor 24 hexadecimal digits.",
}


def made_of(properties: Schema, required: list[str] | None = None) -> Schema:
    """Return the form of an object that has these properties, and no others.

    :param required: what it must have; None is all.
    """
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def list_of(schema: Schema, **bounds: int) -> Schema:
    """Return the form of a list."""
    return {"type": "array", "items": schema, **bounds}


PROBLEM = {
    "type": "object",
    "properties": {
        "type": STRING,
        "title": STRING,
        "status": {"type": "integer"},
        "detail": STRING,
        "error": {"type": "string", "description": "The name of the package's error."},
    },
    "required": ["type", "title", "status", "detail"],
}

LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE, "default": 50}
AFTER: Schema = {
    "type": "string",
    "pattern": "^(0|[1-9a-f][0-9a-f]{0,30})$",
    "description": "The `next` of the page before.",
}

JOB_ROW = made_of(
    {
        "id": ID,
        "task": STRING,
        "status": STATUS,
        "attempt": COUNT,
        "error": TEXT,
        "created": TIME_OR_NULL,
        "started": TIME_OR_NULL,
        "completed": TIME_OR_NULL,
        "scheduled_for": TIME_OR_NULL,
    }
)

FAILURE = made_of(
    {
        "attempt": COUNT,
        "time": {"type": "number", "description": "Seconds since the epoch."},
        "type": STRING,
        "message": STRING,
        "traceback": STRING,
    }
)

NUMBER_OF_JOB: Schema = {"type": "integer", "minimum": 1}

GROUP = made_of(
    {
        "id": NUMBER_OF_JOB,
        **dict.fromkeys(("total", "completed", "errors", "cancelled"), COUNT),
        "is_ended": FLAG,
    }
)

LOG_LINE = made_of({"time": {"type": "number"}, "level": STRING, "attempt": COUNT, "text": STRING})

JOB = made_of(
    {
        **JOB_ROW["properties"],
        "waits_for": TEXT,
        "after": list_of(NUMBER_OF_JOB),
        "awaits": list_of(NUMBER_OF_JOB),
        "cause": {**NUMBER_OF_JOB, "type": ["integer", "null"]},
        "on_success": TEXT,
        "on_error": TEXT,
        "group": {**GROUP, "type": ["object", "null"]},
        "priority": {"type": "integer"},
        "unique_key": TEXT,
        "lock": TEXT,
        "expires": TIME_OR_NULL,
        "note": TEXT,
        "transaction": TEXT,
        "deaths": COUNT,
        "conflicts": COUNT,
        "cancel_requested": FLAG,
        "progress": {
            "type": ["array", "null"],
            "description": "What is done, of how much (or null), and a message.",
        },
        "input": ANY,
        "result": ANY,
        "failures": list_of(FAILURE),
        "log": list_of(LOG_LINE),
        "detail": {"type": ["string", "null"], "description": "What `IJobDetail` says."},
    }
)

JOBS = made_of({"jobs": list_of(JOB_ROW), "next": TEXT})

JOB_QUERY = {
    "status": STATUS,
    "task": NAME,
    "text": {"type": "string", "description": "Only jobs with this text in their error."},
    "since": {**TIME, "description": "Only jobs whose time is not before that."},
    "until": {**TIME, "description": "Only jobs whose time is not later."},
    "order": {"type": "string", "enum": ["newest", "oldest"], "default": "newest"},
    "after": AFTER,
    "limit": LIMIT,
}

SECONDS: Schema = {"type": "number", "minimum": 0, "maximum": MAX_WAIT_SECONDS}

PRIORITY: Schema = {"type": "integer", "minimum": -MAX_PRIORITY, "maximum": MAX_PRIORITY}
KEY: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_NAME}
NEXT_JOB = made_of({"task": NAME, "input": ANY}, ["task"])
FOLLOW_UP: Schema = {
    **NEXT_JOB,
    "description": "A job that is added when this one has come to that.",
}

NEW_JOB = made_of(
    {
        "task": NAME,
        "input": ANY,
        "delay": {**SECONDS, "description": "Seconds until it runs."},
        "at": {**TIME, "description": "When it runs; up to 100 years ahead."},
        "note": {"type": "string", "maxLength": MAX_NOTE},
        "start_later": FLAG,
        "priority": PRIORITY,
        "unique_key": {
            **KEY,
            "description": "If a job with it waits or runs, none is added, and that id is told.",
        },
        "lock": {**KEY, "description": "Of the jobs with the same lock one runs at a time."},
        "expires": {
            "anyOf": [SECONDS, TIME],
            "description": "Seconds, or when: it is cancelled if it has not started by then.",
        },
        "after": {
            **list_of(NUMBER_OF_JOB, maxItems=MAX_AFTER),
            "description": "The ids of jobs that have to be completed first.",
        },
        "on_success": FOLLOW_UP,
        "on_error": FOLLOW_UP,
    },
    ["task"],
)
NEW_JOBS = made_of(
    {
        "task": NAME,
        "inputs": list_of(ANY, minItems=1, maxItems=MAX_MANY),
        "priority": PRIORITY,
    },
    ["task", "inputs"],
)
NEW_GROUP = made_of(
    {
        "task": NAME,
        "inputs": list_of(ANY, maxItems=MAX_MANY),
        "then": NEXT_JOB,
        "priority": PRIORITY,
        "lock": {**KEY, "description": "Of the jobs with the same lock one runs at a time."},
    },
    ["task", "inputs", "then"],
)
FOUND = made_of({"id": {"type": ["integer", "null"]}})
BY = made_of({"by": {**NAME, "maxLength": MAX_NAME}}, [])

ADDED = made_of({"id": ID, "status_url": STRING})
ADDED_MANY = made_of({"ids": list_of(ID), "status_urls": list_of(STRING)})
OUTCOME = made_of({"id": ID, "outcome": STRING})

FINALS = list_of({"type": "string", "enum": list(FINAL_STATUSES)}, minItems=1, maxItems=3)
CLEAN = made_of(
    {
        "status": FINALS,
        "before": {**TIME, "description": "Only jobs that ended before."},
        "limit": {**MANY, "description": "How many of each status."},
    },
    [],
)
CLEANED = made_of(
    {"removed": {"type": "object", "additionalProperties": COUNT}},
)
REPEAT = made_of({"task": NAME, "before": TIME, "limit": MANY}, [])
OF_TASK = made_of({"task": NAME}, [])
NUMBER = made_of({"count": COUNT})

NUMBERS = {
    name: list_of({"type": "integer", "minimum": first, "maximum": last}, maxItems=MAX_NUMBERS)
    for name, (first, last) in {
        "minute": (0, 59),
        "hour": (0, 23),
        "dayOfMonth": (1, 31),
        "month": (1, 12),
        "dayOfWeek": (0, 6),
    }.items()
}
FIELDS = {
    **NUMBERS,
    "delay": {"type": ["number", "null"], "minimum": 0, "maximum": MAX_WAIT_SECONDS},
    "timezone": {"type": ["string", "null"], "maxLength": MAX_TEXT},
    "cron": {"type": ["string", "null"], "maxLength": MAX_TEXT},
}
SCHEDULE = made_of(
    {
        "id": ID,
        "key": {**TEXT, "description": "What `ensure` was given."},
        "declared": {**FLAG, "description": "Whether its task declares it."},
        "task": STRING,
        "status": STATUS,
        "paused": FLAG,
        "next": TIME_OR_NULL,
        "last": TIME_OR_NULL,
        "error": TEXT,
        "missed": {"type": ["integer", "null"]},
        **FIELDS,
        "input": ANY,
    }
)
SCHEDULES = made_of({"schedules": list_of(SCHEDULE), "next": TEXT})
NEW_SCHEDULE = made_of({"task": NAME, "input": ANY, **FIELDS}, ["task"])
KEYED_SCHEDULE = made_of({"key": KEY, "task": NAME, "input": ANY, **FIELDS}, ["key", "task"])
OF_KEY = made_of({"key": KEY})
REMOVED = made_of({"removed": FLAG})
CHANGED_SCHEDULE = made_of({"task": NAME, **FIELDS}, ["task"])
TIMES = made_of({"times": list_of(TIME)})

SERVICE = made_of(
    {
        "site": STRING,
        "service": STRING,
        "name": STRING,
        "door": {"type": "string", "enum": ["task service", "remote processor"]},
        "jobs": {"type": "object", "additionalProperties": COUNT},
        "paused": list_of(STRING),
        "workers": COUNT,
        "processing": FLAG,
        "oldest_waiting": TIME_OR_NULL,
    }
)
SERVICES = made_of({"services": list_of({**made_of({"name": STRING, "url": STRING})})})
TASKS = made_of({"tasks": list_of(STRING)})
WORKER = made_of(
    {
        "id": STRING,
        "host": STRING,
        "pid": {"type": "integer"},
        "held": list_of({"type": "integer"}),
        "is_inline": FLAG,
        "last_sign": TIME_OR_NULL,
        "threads": COUNT,
        "supervisor": INTEGER_OR_NULL,
        "child": INTEGER_OR_NULL,
        "starts": COUNT,
        "restarted": STRING,
        "silent_seconds": NUMBER_OR_NULL,
        "alive": FLAG,
    }
)
WORKERS = made_of({"workers": list_of(WORKER)})
HEALTH = made_of(
    {
        "healthy": FLAG,
        "problems": list_of(STRING),
        "oldest_waiting_seconds": NUMBER_OR_NULL,
        "workers_alive": COUNT,
        "processing": FLAG,
        "paused": list_of(STRING),
    }
)
