# SPDX-License-Identifier: ZPL-2.1
"""What the tests of the web service share: an application over a workplace, and what asks it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from webob import Request, Response

from lovely.remotetask.web import make_app
from workplace import Workplace


def let_all_in(request: Request, permission: str) -> bool:
    """Be an authorizer that lets everybody do everything."""
    return True


class Site:
    """An application, and what asks it."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def ask(
        self,
        path: str,
        method: str = "GET",
        json_body: Any = None,
        body: bytes | None = None,
        content_type: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Return the answer to a request."""
        if json_body is not None:
            body, content_type = json.dumps(json_body).encode(), "application/json"
        request = Request.blank(path, method=method, headers=headers or {})
        if body is not None:
            request.body = body
        if content_type is not None:
            request.content_type = content_type
        return request.get_response(self.app)

    def post(self, path: str, given: Any = None, **options: Any) -> Response:
        """Return the answer to a call of the API."""
        return self.ask(f"/api/v1{path}", "POST", given, **options)

    def get(self, path: str) -> Any:
        """Return what a call of the API tells."""
        response = self.ask(f"/api/v1{path}")
        assert response.status_int == 200, response.text
        return response.json


@pytest.fixture(autouse=True)
def own_tasks(empty_registry: None) -> None:
    """Let there be no tasks but those of the test: the demo registers its own for good."""


@pytest.fixture
def make_site(workplace: Workplace) -> Callable[..., Site]:
    """Return a function that makes a `Site` of the workplace's database."""

    def make(**options: Any) -> Site:
        return Site(make_app(workplace.db, **{"authorize": let_all_in, **options}))

    return make


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """A site that lets everybody do everything."""
    return make_site()
