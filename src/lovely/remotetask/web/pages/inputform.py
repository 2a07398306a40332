# SPDX-License-Identifier: ZPL-2.1
"""Forms for the input of a job, made of the fields of the task's schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from zope import schema as zs
from zope.interface import Interface, Invalid
from zope.schema.interfaces import (
    IAbstractSet,
    IBool,
    IBytes,
    IChoice,
    ICollection,
    IDate,
    IDatetime,
    IDecimal,
    IFloat,
    IFrozenSet,
    IInt,
    INativeString,
    IPassword,
    IText,
    ITextLine,
    ITime,
    ITimedelta,
    ITuple,
    RequiredMissing,
    TooBig,
    TooLong,
    TooShort,
    TooSmall,
)

from lovely.remotetask.base.schemas import problems_with
from lovely.remotetask.errors import describe, text_of
from lovely.remotetask.web.pages.wording import value_text

#: The prefix of the names of a schema's fields, which may be called as one of ours.
PREFIX = "input."

#: The name of the field for an input without a schema.
JSON_NAME = "input"

#: Characters of JSON that are read.
MAX_JSON = 1_000_000

#: What stands for True in a checkbox.
TICKED = "yes"


class Shown(NamedTuple):
    """A field as the template shows it.

    :ivar kind: ``line``, ``text``, ``number``, ``tick``, ``choice`` or the type of an input.
    :ivar choices: what a ``choice`` offers: (value, text).
    :ivar step: of a ``number``.
    """

    name: str
    label: str
    hint: str
    kind: str
    is_required: bool
    typed: str
    wrong: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    step: str = "1"
    low: str | None = None
    high: str | None = None


class Read(NamedTuple):
    """What was typed.

    :ivar fields: as they are shown again, with what is wrong.
    :ivar value: the input; it makes sense only if nothing is wrong.
    :ivar wrong: what is wrong with all of it.
    """

    fields: list[Shown]
    value: Any
    wrong: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether the input can be given to the task."""
        return not self.wrong and not any(field.wrong for field in self.fields)


class _NotGiven(Exception):
    """The field was left empty."""


def schema_of(task: Any) -> Any:
    """Return the schema of a task's input, or None."""
    schema = getattr(task, "inputSchema", None)
    has_fields = schema not in (None, Interface) and bool(zs.getFieldsInOrder(schema))
    return schema if has_fields else None


def empty_form(schema: Any, prefilled: Any = None) -> list[Shown]:
    """Return the fields of a form that nobody has filled in yet.

    :param prefilled: an input to begin with.
    """
    if schema is None:
        return [_json_field("" if prefilled is None else json_text(prefilled))]
    given = prefilled if isinstance(prefilled, Mapping) else {}
    fields = []
    for name, field in zs.getFieldsInOrder(schema):
        value = given.get(name, field.default)
        fields.append(_shown(name, field, "" if value is None else _typed(field, value)))
    return fields


def read_form(schema: Any, typed: Mapping[str, str]) -> Read:
    """Read what was typed into a form."""
    if schema is None:
        return _read_json(typed.get(JSON_NAME, ""))
    values: dict[str, Any] = {}
    fields = []
    for name, field in zs.getFieldsInOrder(schema):
        text = typed.get(PREFIX + name, "")
        wrong = ""
        try:
            values[name] = _value(field, text)
            field.bind(None).validate(values[name])
        except _NotGiven:
            if field.required:
                wrong = "this is needed"
            else:
                values[name] = field.missing_value
        except Invalid as error:
            wrong = _told(field, error)
        except (ValueError, ArithmeticError, TypeError) as error:
            wrong = text_of(error)
        fields.append(_shown(name, field, text, wrong))
    problems = [] if any(field.wrong for field in fields) else problems_with(schema, values)
    return Read(fields, values, tuple(problems))


# -- JSON ------------------------------------------------------------------------------------


def json_text(value: Any) -> str:
    """Return a value as JSON that gives the same value again; empty if there is none such."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False)
        return text if json.loads(text) == value else ""
    except (TypeError, ValueError, RecursionError):
        return ""


def _json_field(typed: str, wrong: str = "") -> Shown:
    hint = 'JSON, such as {"name": "Ada"}, "text" or 12; empty is no input.'
    return Shown(JSON_NAME, "Input", hint, "text", False, typed, wrong)


def _read_json(text: str) -> Read:
    if not text.strip():
        return Read([_json_field(text)], None)
    try:
        value = parse_json(text)
    except ValueError as error:
        return Read([_json_field(text, str(error))], None)
    return Read([_json_field(text)], value)


def parse_json(text: str) -> Any:
    """Return the value of a text in JSON.

    :raises ValueError: it is none, is too long, or too deeply nested.
    """
    if len(text) > MAX_JSON:
        raise ValueError(f"this has more than {MAX_JSON:,} characters")
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"this is no JSON: {error.msg}, line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise ValueError("this is nested too deeply") from None


def _refuse(name: str) -> Any:
    raise ValueError(f"this is no JSON: {name}")


# -- fields of zope.schema ---------------------------------------------------------------------


def _value(field: Any, text: str) -> Any:
    """Return the value of what was typed into a field.

    :raises _NotGiven: nothing was.
    :raises ValueError: it is none; the text says why.
    """
    if IBool.providedBy(field) and not IChoice.providedBy(field):
        return text == TICKED
    if not text.strip():
        raise _NotGiven
    if IChoice.providedBy(field):
        for value, typed, _ in _terms(field):
            if typed == text:
                return value
        raise ValueError("this is none of the choices")
    for provided, reader in _READERS:
        if provided.providedBy(field):
            return reader(text)
    if ICollection.providedBy(field) and _is_simple(field.value_type):
        return _members(field, text)
    return parse_json(text)


def _members(field: Any, text: str) -> Any:
    values = [_value(field.value_type, line.strip()) for line in text.splitlines() if line.strip()]
    if ITuple.providedBy(field):
        return tuple(values)
    if IFrozenSet.providedBy(field):
        return frozenset(values)
    return set(values) if IAbstractSet.providedBy(field) else values


def _number(kind: Callable[[str], Any], name: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if len(text) > 1000:
            raise ValueError("this is too long")
        try:
            return kind(text.strip())
        except (ValueError, InvalidOperation):
            raise ValueError(f"this is no {name}") from None

    return read


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)


def _line(text: str) -> str:
    # Browsers send lines in the form of the net.
    return text.replace("\r\n", "\n")


#: The first interface that a field provides says how it is read.
_READERS: tuple[tuple[Any, Callable[[str], Any]], ...] = (
    (IInt, _number(int, "whole number")),
    (IFloat, _number(float, "number")),
    (IDecimal, _number(Decimal, "number")),
    (IDatetime, _number(_moment, "date with a time")),
    (IDate, _number(date.fromisoformat, "date")),
    (ITime, _number(time.fromisoformat, "time")),
    (ITimedelta, _number(lambda text: timedelta(seconds=float(text)), "number of seconds")),
    (INativeString, _line),
    (IBytes, lambda text: _line(text).encode()),
    (IText, _line),
)

#: And what it looks like.
_KINDS: tuple[tuple[Any, str], ...] = (
    (IInt, "number"),
    (IFloat, "number"),
    (IDecimal, "line"),
    (IDatetime, "datetime-local"),
    (IDate, "date"),
    (ITime, "time"),
    (ITimedelta, "number"),
    (IPassword, "password"),
    (ITextLine, "line"),
)


def _is_simple(field: Any) -> bool:
    if field is None:
        return False
    known = (IBool, IChoice, *(provided for provided, _ in _READERS))
    return any(provided.providedBy(field) for provided in known)


def _kind(field: Any) -> str:
    if IChoice.providedBy(field):
        return "choice" if _terms(field) else "line"
    if IBool.providedBy(field):
        return "tick"
    for provided, kind in _KINDS:
        if provided.providedBy(field):
            return kind
    is_line = isinstance(field, (zs.NativeStringLine, zs.BytesLine, zs.URI))
    return "line" if is_line else "text"


def _terms(field: Any) -> list[tuple[Any, str, str]]:
    """Return the values of a choice: what it is, what is sent, what is shown."""
    try:
        vocabulary = field.bind(None).vocabulary
        return [
            (term.value, text_of(term.token), text_of(term.title or term.value))
            for term in vocabulary
        ]
    except (Invalid, TypeError, LookupError, ValueError):  # it cannot be listed here
        return []


def _shown(name: str, field: Any, typed: str, wrong: str = "") -> Shown:
    kind = _kind(field)
    choices: tuple[tuple[str, str], ...] = ()
    if kind == "choice":
        choices = tuple((sent, text) for _, sent, text in _terms(field))
    bounds = [getattr(field, bound, None) for bound in ("min", "max")]
    low, high = (None if b is None or kind != "number" else _bound(b) for b in bounds)
    return Shown(
        PREFIX + name,
        text_of(field.title) or name,
        _hint(field),
        kind,
        bool(field.required) and kind != "tick",
        typed,
        wrong,
        choices,
        "1" if IInt.providedBy(field) else "any",
        low,
        high,
    )


def _bound(value: Any) -> str:
    return str(value.total_seconds() if isinstance(value, timedelta) else value)


def _hint(field: Any) -> str:
    hints = [text_of(field.description)] if field.description else []
    if IDatetime.providedBy(field):
        hints.append("In UTC.")
    elif ITimedelta.providedBy(field):
        hints.append("In seconds.")
    elif ICollection.providedBy(field) and _is_simple(field.value_type):
        hints.append("One a line.")
    elif _kind(field) == "text" and not IText.providedBy(field) and not IBytes.providedBy(field):
        hints.append("As JSON.")
    return " ".join(hints)


def _typed(field: Any, value: Any) -> str:
    """Return what stands in a field for a value."""
    if IBool.providedBy(field) and not IChoice.providedBy(field):
        return TICKED if value else ""
    if IChoice.providedBy(field):
        return next((sent for known, sent, _ in _terms(field) if known == value), "")
    if ICollection.providedBy(field) and _is_simple(field.value_type):
        try:
            return "\n".join(_typed(field.value_type, member) for member in value)
        except TypeError:
            return ""
    if isinstance(value, datetime):
        aware = value.astimezone(timezone.utc) if value.tzinfo else value
        return aware.replace(tzinfo=None).isoformat(timespec="seconds")
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}"
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (str, int, float, Decimal)):
        return str(value)
    return json_text(value) or value_text(value)


def _told(field: Any, error: Invalid) -> str:
    """Return what is wrong with a value, in words."""
    if isinstance(error, RequiredMissing):
        return "this is needed"
    if isinstance(error, TooSmall):
        return f"this must be {_bound(field.min)} or more"
    if isinstance(error, TooBig):
        return f"this must be {_bound(field.max)} or less"
    if isinstance(error, TooShort):
        return f"this must have {field.min_length} or more"
    if isinstance(error, TooLong):
        return f"this must have {field.max_length} or fewer"
    doc = getattr(error, "doc", None)
    return text_of(doc()) if callable(doc) else describe(error)
