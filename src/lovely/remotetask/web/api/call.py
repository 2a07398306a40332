# SPDX-License-Identifier: ZPL-2.1
"""What a call of the JSON API is: one description from which it is checked, answered, and told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from webob import Response

from lovely.remotetask.errors import shown
from lovely.remotetask.web.routing import Context, Route
from lovely.remotetask.web.security import Refusal

#: Where all calls begin.
PREFIX = "/api/v1"

Schema = Mapping[str, Any]

#: A query or a body takes no more than what is told.
NOTHING: dict[str, Schema] = {}


class Answer(NamedTuple):
    """What a call answers: what it means, and the form of its body; None is none."""

    text: str
    schema: Schema | None = None
    media_type: str = "application/json"


class Call(NamedTuple):
    """One call.

    :ivar name: names it for programs.
    :ivar method: ``GET``, ``POST``, ...
    :ivar path: behind `PREFIX`, such as ``/jobs/{job}``.
    :ivar permission: what it takes.
    :ivar summary: what it does, in one line.
    :ivar run: called with the context and what was given (values of the query and of the body, by
        name); returns the answer.
    :ivar answers: by status.
    :ivar query: the forms of the values in the query, by name.
    :ivar body: the form of the body, an object; None takes none.
    :ivar is_body_needed: whether there has to be one.
    :ivar errors: statuses beside those that any call can answer.
    :ivar is_top: it is asked of no service.
    """

    name: str
    method: str
    path: str
    permission: str
    summary: str
    run: Callable[[Context, dict[str, Any]], Response]
    answers: Mapping[int, Answer]
    query: Mapping[str, Schema] = NOTHING
    body: Schema | None = None
    is_body_needed: bool = True
    errors: tuple[int, ...] = ()
    is_top: bool = False

    def route(self) -> Route:
        """Return the route that leads here."""
        return Route(self.method, PREFIX + self.path, self.permission, self._view)

    def _view(self, context: Context) -> Response:
        given = self._of_query(context)
        if self.body is not None:
            given.update(self._of_body(context))
        return self.run(context, given)

    def _of_query(self, context: Context) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, text in context.request.GET.items():
            schema = self.query.get(name)
            if schema is None or name in found:
                problem = "there is no such parameter" if schema is None else "it is given twice"
                raise Refusal(422, f"{shown(name)} in the query: {problem}", "InvalidArgument")
            found[name] = _checked(_typed(text, schema), schema, f"{name} in the query")
        return found

    def _of_body(self, context: Context) -> dict[str, Any]:
        assert self.body is not None
        request = context.request
        if not request.body and not self.is_body_needed:
            return {}
        if request.content_type != "application/json":
            raise Refusal(415, "the body must be application/json")
        forms = self.body["properties"]
        given = read_json(request.body)
        _check_lengths(given, forms)
        found: dict[str, Any] = _checked(given, self.body, "the body")
        return {name: _whole(value, forms[name]) for name, value in found.items()}


def read_json(body: bytes) -> Any:
    """Return what a text in JSON says.

    :raises Refusal: it is none.
    """
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise Refusal(400, "the body is nested too deep", "InvalidInput") from None
    except ValueError as error:  # UnicodeDecodeError is one
        raise Refusal(400, f"the body is no JSON: {error}", "InvalidInput") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _typed(text: str, schema: Schema) -> Any:
    """Return a text of a query as the number that its form asks for, if it is one."""
    if schema.get("type") == "integer" and re.fullmatch("-?[0-9]{1,15}", text):
        return int(text)
    if schema.get("type") == "boolean":
        return {"true": True, "false": False}.get(text, text)
    return text


def _whole(value: Any, schema: Schema) -> Any:
    """Return a value with an int where JSON has a whole number with a point, such as 5.0."""
    if schema.get("type") == "integer":
        return int(value)
    if schema.get("type") == "array":
        return [_whole(part, schema["items"]) for part in value]
    return value


def _check_lengths(given: Any, forms: Mapping[str, Schema]) -> None:
    """Refuse lists that are too long at once: jsonschema looks at each member before their number.

    A million of them would take it ten seconds.
    """
    for name, value in given.items() if isinstance(given, dict) else ():
        most = forms.get(name, {}).get("maxItems")
        if isinstance(value, list) and most is not None and len(value) > most:
            text = f"the body[{shown(name)}]: a list of {most} members at the most"
            raise Refusal(422, text, "InvalidArgument")


def _checked(value: Any, schema: Schema, name: str) -> Any:
    """Return a value that has the form it should have.

    :raises Refusal: it does not.
    """
    try:
        error = best_match(Draft202012Validator(schema).iter_errors(value))
    except RecursionError:
        raise Refusal(400, f"{name} is nested too deep", "InvalidInput") from None
    if error is None:
        return value
    place = "".join(f"[{shown(step)}]" for step in error.absolute_path)
    raise Refusal(422, f"{name}{place}: {_message(error)}", "InvalidArgument")


def _message(error: Any) -> str:
    # jsonschema shows all of a value.
    text: str = error.message
    return text if len(text) <= 300 else f"{shown(error.instance)} is not valid ({error.validator})"


# -- answers -------------------------------------------------------------------------------


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer in JSON."""
    response = Response(
        json.dumps(value).encode(), status=status, content_type="application/json", charset=None
    )
    response.headers.update(headers or {})
    return response


def show_problem(refusal: Refusal) -> Response:
    """Return an answer in the form of RFC 9457; ``error`` names the error of the package."""
    problem = {
        "type": "about:blank",
        "title": refusal.title,
        "status": refusal.status,
        "detail": refusal.detail,
    }
    if refusal.error is not None:
        problem["error"] = refusal.error
    response = answer(problem, refusal.status)
    response.content_type = "application/problem+json"
    return response
