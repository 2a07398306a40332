# SPDX-License-Identifier: ZPL-2.1
"""Sphinx directives that show the house as it is.

``house`` draws it, ``rooms`` and ``protocol`` are tables.  Nothing is written twice: the floors,
and who may commit, are those that ``tests/test_architecture.py`` holds true; what a module is for
says its own docstring, or that of its folder; the rest is in ``engine/protocol.py``.  The sources
are read, not run.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "lovely" / "remotetask"
RULES = ROOT / "tests" / "test_architecture.py"
SHOWN = {"FRONT", "FLOORS", "EXCEPTIONS", "ENDS_TRANSACTIONS"}
PROTOCOL = PACKAGE / "engine" / "protocol.py"


# -- what the sources say --------------------------------------------------------------------


class Place(NamedTuple):
    """A module beside the folders, or a folder with its modules from top to bottom."""

    name: str
    text: str
    rooms: list[tuple[str, str]]  # (name, what it is for)

    @property
    def title(self) -> str:
        return f"{self.name}/" if self.rooms else self.name


def assigned(node: ast.AnnAssign | ast.Assign) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


@cache
def rules() -> dict[str, Any]:
    """Return the constants of the test that are shown here."""
    tree = ast.parse(RULES.read_text(encoding="utf-8"))
    tree.body = [
        node
        for node in tree.body
        if isinstance(node, ast.AnnAssign | ast.Assign) and SHOWN & assigned(node)
    ]
    found: dict[str, Any] = {}
    exec(compile(tree, str(RULES), "exec"), found)
    return found


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def first_sentence(text: str) -> str:
    return " ".join(re.split(r"(?<=\.)\s", text.strip())[0].split()).rstrip(".")


def places(names: tuple[str, ...]) -> list[Place]:
    """Return those of a floor that exist."""
    found = []
    for name in names:
        folder = PACKAGE / name
        source = folder / "__init__.py" if folder.is_dir() else PACKAGE / f"{name}.py"
        if source.exists():
            text = docstring(source)
            rooms = re.findall(r"^``(\w+)``\s+(.+)$", text, re.MULTILINE)
            found.append(Place(name, first_sentence(text), rooms if folder.is_dir() else []))
    return found


def floors() -> list[list[Place]]:
    return [floor for names in rules()["FLOORS"] if (floor := places(names))]


def protocols() -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Yield (name, what it is, [(method, what it does)]) for each part of an engine."""
    for node in ast.parse(PROTOCOL.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases):
            methods = [
                (part.name, first_sentence(ast.get_docstring(part) or ""))
                for part in node.body
                if isinstance(part, ast.FunctionDef)
            ]
            yield node.name, first_sentence(ast.get_docstring(node) or ""), methods


# -- the picture -----------------------------------------------------------------------------

WIDTH = 736  # of a page of the theme, in pixels
LEFT, RIGHT = 26, 26  # room for the arrows
GAP, PAD = 8, 10
LINE = 17  # height of a line of text
CHIP = 22  # height of a room in its folder
MONO, SANS = 7.6, 6.4  # width of a letter, with some room to spare

STYLE = """
.house { max-width: 100%; height: auto; font-size: 12.5px; font-family: inherit }
.house text { fill: var(--color-foreground-primary, #111) }
.house .name { font-family: var(--font-stack--monospace, monospace); font-weight: 700 }
.house .room { font-family: var(--font-stack--monospace, monospace); font-size: 12px }
.house .small { fill: var(--color-foreground-secondary, #555); font-size: 11.5px }
.house .front { fill: var(--color-background-primary, #fff) }
.house .front, .house .folder { stroke: var(--color-foreground-muted, #888) }
.house .folder { fill: var(--color-background-secondary, #f3f4f6) }
.house .chip {
  fill: var(--color-background-primary, #fff); stroke: var(--color-background-border, #ccc) }
.house .down, .house .up { fill: none; stroke: var(--color-foreground-secondary, #555) }
.house .up { stroke: var(--color-brand-content, #26c); stroke-dasharray: 4 3 }
.house .tip { fill: var(--color-foreground-secondary, #555) }
.house .tip-up { fill: var(--color-brand-content, #26c) }
"""


def plain(text: str) -> str:
    return escape(text.replace("`", ""))


def write(x: float, y: float, text: str, kind: str, anchor: str = "start", turn: str = "") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}"{turn}>'
        f"{plain(text)}</text>"
    )


def may_commit(place: Place) -> bool:
    return place.name in rules()["ENDS_TRANSACTIONS"]


def draw_head(
    place: Place, x: float, y: float, width: float, is_alone: bool
) -> tuple[list[str], float]:
    """Write what a place is, beside its name if there is room, and return where that ends."""
    parts = [write(x + PAD, y + LINE, place.title, "name")]
    right = width - 2 * PAD
    if may_commit(place):
        parts.append(write(x + width - PAD, y + LINE, "may commit", "small", "end"))
        right -= 76
    left = len(place.title) * MONO + 12
    if is_alone and len(place.text) * SANS <= right - left:
        parts.append(write(x + PAD + left, y + LINE, place.text, "text"))
        return parts, y + LINE
    lines = textwrap.wrap(place.text, int((width - 2 * PAD) / SANS))
    for number, line in enumerate(lines, 2):
        parts.append(write(x + PAD, y + number * LINE, line, "text"))
    return parts, y + LINE * (1 + len(lines))


def draw_rooms(place: Place, x: float, y: float, width: float) -> tuple[list[str], float]:
    """Draw the modules of a folder in their order, and return where they end."""
    parts, left = [], x + PAD
    for name, text in place.rooms:
        size = len(name) * MONO + 12
        if left + size > x + width - PAD:
            left, y = x + PAD, y + CHIP + 6
        parts += [
            f"<g><title>{plain(text)}</title>",
            f'<rect x="{left:g}" y="{y:g}" width="{size:g}" height="{CHIP}" rx="4" class="chip"/>',
            write(left + size / 2, y + 15, name, "room", "middle") + "</g>",
        ]
        left += size + 6
    return parts, y + CHIP


def stand(floor: list[Place]) -> list[tuple[Place, float, float]]:
    """Return (place, where it begins, its width) for each; folders are wider than modules."""
    shares = [3 if place.rooms else 1 for place in floor]
    width = (WIDTH - LEFT - RIGHT - GAP * (len(floor) - 1)) / sum(shares)
    lefts = [LEFT + width * sum(shares[:n]) + GAP * n for n in range(len(floor))]
    return [(*each, width * share) for *each, share in zip(floor, lefts, shares, strict=True)]


def draw_floor(floor: list[Place], y: float) -> tuple[list[str], float]:
    """Draw those who stand side by side, and return where they end."""
    standing = stand(floor)
    parts, end = [], y
    for place, x, width in standing:
        drawn, bottom = draw_head(place, x, y, width, len(floor) == 1)
        parts += drawn
        if place.rooms:
            drawn, bottom = draw_rooms(place, x, bottom + 8, width)
            parts += drawn
        end = max(end, bottom + (PAD if place.rooms else 7))
    frames = [
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}"'
        f' height="{end - y:g}" rx="5" class="{"folder" if place.rooms else "front"}"/>'
        for place, x, width in standing
    ]
    return frames + parts, end


def draw_arrow_down(bottom: float) -> list[str]:
    middle = bottom / 2
    turn = f' transform="rotate(-90 8 {middle:g})"'
    return [
        f'<path d="M 18 4 V {bottom - 8:g}" class="down"/>',
        f'<path d="M 14 {bottom - 9:g} h 8 l -4 8 z" class="tip"/>',
        write(8, middle + 4, "imports point down", "small", "middle", turn),
    ]


def draw_exceptions(middles: dict[str, float]) -> list[str]:
    """Draw the imports that point up, as the test lists them."""
    parts, side = [], WIDTH - RIGHT
    for (who, whom), why in rules()["EXCEPTIONS"].items():
        low, high = middles[who.partition(".")[0]], middles[whom.partition(".")[0]]
        if low == high:  # within a folder, which is drawn as one
            continue
        parts += [
            f"<g><title>{who} imports {whom}: {plain(why)}</title>",
            f'<path d="M {side} {low:g} h 14 V {high:g} h -8" class="up"/>',
            f'<path d="M {side + 8} {high - 4:g} v 8 l -8 -4 z" class="tip-up"/></g>',
        ]
    return parts


def draw() -> str:
    """Return the picture of the house, from the roof to the cellar, as SVG."""
    parts: list[str] = []
    middles: dict[str, float] = {}
    y = 1.0
    for floor in floors():
        drawn, end = draw_floor(floor, y)
        parts += drawn
        middles |= dict.fromkeys((place.name for place in floor), (y + end) / 2)
        y = end + GAP
    y -= GAP
    parts += draw_arrow_down(y)
    parts += draw_exceptions(middles)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="house" role="img" width="{WIDTH}"'
        f' viewBox="0 0 {WIDTH} {y + 1:g}" aria-label="The folders and modules, one above the'
        f' other; the table below has the same.">\n<style>{STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</svg>"
    )


# -- the directives --------------------------------------------------------------------------


def list_table(widths: str, head: list[str], rows: list[list[str]]) -> str:
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", ""]
    for row in [head, *rows]:
        for number, cell in enumerate(row):
            lines.append(f"   {' ' if number else '*'} - {cell}".rstrip())
    return "\n".join(lines)


class Shown(SphinxDirective):
    """What is made from the sources, and made anew when they have changed."""

    def run(self) -> list[nodes.Node]:
        for path in [RULES, Path(__file__), *PACKAGE.glob("*.py"), *PACKAGE.glob("*/*.py")]:
            self.env.note_dependency(str(path))
        return self.made()

    def made(self) -> list[nodes.Node]:
        raise NotImplementedError


class House(Shown):
    def made(self) -> list[nodes.Node]:
        return [nodes.raw("", draw(), format="html")]


class Rooms(Shown):
    def made(self) -> list[nodes.Node]:
        rows = []
        for floor in floors():
            for place in floor:
                rows.append([f"``{place.title}``", "", place.text])
                rows += [["", f"``{name}``", text] for name, text in place.rooms]
        table = list_table("16 18 66", ["place", "room", "what"], rows)
        return self.parse_text_to_nodes(table)


class Protocol(Shown):
    def made(self) -> list[nodes.Node]:
        rows = []
        for name, text, methods in protocols():
            rows.append([f"``{name}``", "", text])
            rows += [["", f"``{method}``", does] for method, does in methods]
        return self.parse_text_to_nodes(list_table("16 22 62", ["part", "method", "what"], rows))


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("house", House)
    app.add_directive("rooms", Rooms)
    app.add_directive("protocol", Protocol)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
