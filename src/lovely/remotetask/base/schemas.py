# SPDX-License-Identifier: ZPL-2.1
"""Values against schemas of zope.schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transaction.interfaces import TransientError
from zope.interface import Interface, Invalid
from zope.schema import getFieldsInOrder

from lovely.remotetask.errors import MAX_SHOWN, describe, text_of


class _Fields:
    """Lets a schema's invariants read a mapping as they read an object."""

    def __init__(self, mapping: Mapping[str, Any]) -> None:
        self.__dict__.update(mapping)


def problems_with(schema: Any, value: Any) -> list[str]:
    if schema is None or schema is Interface:
        return []
    try:
        return _problems(schema, value)
    except TransientError:
        raise
    except Exception as error:  # of the value, of a constraint, or of what is no schema
        return [f"it cannot be checked: {describe(error)}"]


def _problems(schema: Any, value: Any) -> list[str]:
    fields = dict(getFieldsInOrder(schema))
    if isinstance(value, Mapping):
        problems = [f"{text_of(name)}: no such field" for name in value if name not in fields]
        given: Any = {name: value[name] for name in fields if name in value}
    else:
        problems = []
        given = {name: getattr(value, name) for name in fields if hasattr(value, name)}
    for name, field in fields.items():
        if name not in given and not field.required:
            given[name] = field.default
            continue
        try:
            field.validate(given.get(name))
        except Invalid as error:  # ValidationError is one; constraints may raise others
            problems.append(f"{name}: {_describe(error, name in given)}")
        except (TypeError, ValueError, ArithmeticError) as error:  # two that do not compare
            problems.append(f"{name}: {describe(error)}")
    if not problems:
        errors: list[Invalid] = []
        try:
            schema.validateInvariants(_Fields(given), errors)
        except Invalid:
            problems.extend(str(error) for error in errors)
    return problems


def _describe(error: Invalid, is_given: bool) -> str:
    if not is_given:
        return "is missing"
    told = [text_of(arg)[:MAX_SHOWN] for arg in error.args if arg is not None]
    details = ", ".join(text for text in told if text)
    return f"{type(error).__name__}({details})" if details else type(error).__name__
