# SPDX-License-Identifier: ZPL-2.1
"""The web service over real HTTP, and a browser without scripts that finds things by name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urljoin
from urllib.request import HTTPCookieProcessor, Request, build_opener

from bs4 import BeautifulSoup, Tag
from waitress import wasyncore
from waitress.server import create_server

SECONDS_TO_ANSWER = 60.0


@contextmanager
def served(app: Callable[..., Any]) -> Iterator[str]:
    """Serve a WSGI application on this machine; give its address, which ends in no slash."""
    sockets: dict[int, Any] = {}
    server = create_server(app, sockets, host="127.0.0.1", port=0, threads=4)
    stopped = threading.Event()

    def loop() -> None:  # not the server's own, which nothing ends in good order
        while not stopped.is_set():
            wasyncore.loop(0.02, map=sockets, count=1)

    thread = threading.Thread(target=loop, name="test-web", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}"
    finally:
        stopped.set()
        thread.join(SECONDS_TO_ANSWER)
        server.task_dispatcher.shutdown()
        wasyncore.close_all(sockets)


def words(tag: Tag | None) -> str:
    """Return the text of a part of a page in one line."""
    return "" if tag is None else " ".join(tag.get_text().split())


def name_of(tag: Tag) -> str:
    """Return what a part of a page is called by who cannot see it."""
    label = tag.get("aria-label")
    if label is not None:
        return str(label)
    labelled = tag.get("aria-labelledby")
    if labelled is not None:
        root = tag.find_parents()[-1]
        return " ".join(words(root.find(id=part)) for part in str(labelled).split())
    if tag.name in ("input", "select", "textarea"):
        root = tag.find_parents()[-1]
        return words(root.find("label", attrs={"for": tag.get("id")}))
    return words(tag)


class Browser:
    """Loads pages, follows links, fills in forms.

    - ``code``: the code of the last answer.
    - ``headers``: its headers.
    - ``address``: where it came from, after redirects.
    - ``text``: its body.
    """

    def __init__(self, base: str, headers: dict[str, str] | None = None) -> None:
        self.base = base
        self.sent = headers or {}
        self.cookies = CookieJar()
        self._opener = build_opener(HTTPCookieProcessor(self.cookies))
        self.address = base
        self.code = 0
        self.headers: Any = {}
        self.text = ""

    def open(self, path: str, body: bytes | None = None, **headers: str) -> Browser:
        """Load a page; headers are named with underscores."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        request = Request(urljoin(self.address, path), body, {**self.sent, **given})
        try:
            answer = self._opener.open(request, timeout=SECONDS_TO_ANSWER)
        except HTTPError as error:
            answer = error
        with answer:
            self.code, self.headers, self.address = answer.status, answer.headers, answer.url
            self.text = answer.read().decode()
        self._page = BeautifulSoup(self.text, "html.parser")
        self._typed: dict[int, Any] = {}
        return self

    # -- what there is --------------------------------------------------------------------

    def all(self, *tags: str, **attributes: Any) -> list[Tag]:
        """Return parts of the page."""
        return list(self._page.find_all(tags or True, attrs=attributes))

    @property
    def heading(self) -> str:
        """The text of the only h1."""
        [heading] = self.all("h1")
        return words(heading)

    @property
    def status(self) -> str:
        """What is told with the role *status*, that is not hidden."""
        return " ".join(words(tag) for tag in self.all(role="status") if not tag.has_attr("hidden"))

    @property
    def alert(self) -> str:
        """What is told with the role *alert*."""
        return " ".join(words(tag) for tag in self.all(role="alert"))

    def links(self, name: str = "") -> list[Tag]:
        """Return the links whose names begin so."""
        return [tag for tag in self.all("a") if name_of(tag).startswith(name)]

    def buttons(self, name: str | None = None) -> list[Tag]:
        """Return the buttons with a name; None is all."""
        return [tag for tag in self.all("button") if name in (None, name_of(tag))]

    def list_named(self, name: str) -> list[str]:
        """Return what stands in a list."""
        [found] = [tag for tag in self.all("ul", "ol") if name_of(tag) == name]
        return [words(item) for item in found.find_all("li")]

    def field(self, name: str) -> Tag:
        """Return a field with a label."""
        found = [tag for tag in self.all("input", "select", "textarea") if name_of(tag) == name]
        assert len(found) == 1, f"{len(found)} fields are called {name!r}"
        return found[0]

    def value(self, name: str) -> str:
        """Return what stands in a field."""
        return str(self._value(self.field(name)) or "")

    def table(self, first_column: str = "Id") -> tuple[list[str], list[dict[str, str]]]:
        """Return the columns of the first table that has one, and its rows by column."""
        for table in self.all("table"):
            columns = [words(tag) for tag in table.select("thead th")]
            if first_column in columns:
                rows = []
                for row in table.select("tbody tr"):
                    cells = row.select("td:not(.tick)")
                    rows.append(dict(zip(columns, map(words, cells), strict=True)))
                return columns, rows
        raise AssertionError(f"no table has a column {first_column!r}: {words(self._page)[:500]}")

    def rows_of(self, first_column: str) -> list[dict[str, str]]:
        """Return the rows of the first table with a column."""
        return self.table(first_column)[1]

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows of the table."""
        return self.table()[1]

    def sorting(self) -> dict[str, str]:
        """Return ``aria-sort`` by column."""
        found = {words(tag): tag.get("aria-sort") for tag in self.all("th")}
        return {name: str(value) for name, value in found.items() if value}

    # -- what can be done -----------------------------------------------------------------

    def follow(self, name: str) -> Browser:
        """Follow a link with a name."""
        found = [tag for tag in self.links(name) if name_of(tag) == name] or self.links(name)
        assert found, f"there is no link {name!r} among {[name_of(tag) for tag in self.links()]}"
        return self.open(str(found[0]["href"]))

    def fill(self, **values: Any) -> Browser:
        """Fill in fields by their labels, with underscores for blanks; see `type`."""
        for name, value in values.items():
            self.type(name.replace("_", " "), value)
        return self

    def type(self, name: str, value: Any) -> Browser:
        """Fill in a field: a text, that of an option, or for a checkbox whether it is ticked."""
        field = self.field(name)
        if field.name == "select":
            options = {words(option): option.get("value") for option in field.find_all("option")}
            assert value in options, f"{name!r} offers {list(options)}"
            value = value if options[value] is None else options[value]
        self._typed[id(field)] = value
        return self

    def press(self, name: str, within: str | None = None) -> Browser:
        """Press a button.

        :param within: only in a form with this in its name.
        """
        found = [
            tag
            for tag in self.buttons(name)
            if within is None or within in name_of(tag.find_parent("form"))
        ]
        assert found, (
            f"there is no button {name!r} among {[name_of(tag) for tag in self.buttons()]}"
        )
        form = found[0].find_parent("form")
        assert form is not None
        sent = [
            pair
            for field in form.find_all(["input", "select", "textarea"])
            for pair in self._sent(field)
        ]
        if found[0].get("name"):
            sent.append((str(found[0]["name"]), str(found[0].get("value", ""))))
        action = urljoin(self.address, str(form.get("action", "")))
        if form.get("method", "get") == "get":
            return self.open(f"{action.partition('?')[0]}?{urlencode(sent)}")
        origin = "/".join(self.address.split("/")[:3])
        return self.open(action, urlencode(sent).encode(), Origin=origin)

    def _sent(self, field: Tag) -> list[tuple[str, str]]:
        name, value = field.get("name"), self._value(field)
        if not name or value is None or value is False:
            return []
        return [(str(name), str(field.get("value", "on")) if value is True else str(value))]

    def _value(self, field: Tag) -> Any:
        if id(field) in self._typed:
            return self._typed[id(field)]
        if field.name == "textarea":
            return field.get_text().removeprefix("\n")
        if field.name == "select":
            options = field.find_all("option")
            chosen = [option for option in options if option.has_attr("selected")] or options[:1]
            return chosen[0].get("value", words(chosen[0])) if chosen else None
        if field.get("type") == "checkbox":
            return field.has_attr("checked")
        return field.get("value", "")
