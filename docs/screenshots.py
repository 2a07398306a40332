# SPDX-License-Identifier: ZPL-2.1
"""Take the pictures of the management pages that the documentation shows.

::

    apt-get install chromium chromium-driver
    pip install -e '.[test]' pillow
    python docs/screenshots.py

A service is made that has sold and sent mails for an hour, and Chromium looks at its pages.
"""

from __future__ import annotations

import io
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import transaction
import ZODB
from PIL import Image
from ZODB.FileStorage import FileStorage
from zope.interface import Interface
from zope.schema import Choice, Int, List, TextLine

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "_static"

sys.path.insert(0, str(ROOT / "tests"))

from browsing import served  # noqa: E402
from chromium import NARROW, chromium, picture_of  # noqa: E402
from lovely.remotetask import TaskError, TaskService, task  # noqa: E402
from lovely.remotetask.web import make_app  # noqa: E402

WIDTH = 1180

#: In tracebacks it stands for where this machine has the package.
SHOWN_ROOT = "/srv/shop"

MINUTES = 60


# -- the shop ----------------------------------------------------------------------------------


class IMail(Interface):
    """What a mail is made of."""

    recipient = TextLine(title="Recipient", description="An address.")
    subject = TextLine(title="Subject", max_length=80)
    copies = Int(title="Copies", min=1, max=5, default=1)
    kind = Choice(title="Kind", values=["news", "bill", "reminder"], default="bill")
    tags = List(title="Tags", value_type=TextLine(), required=False)


@task("shop.charge")
def charge(input: Any) -> Any:
    """Charge a card, one of which has expired."""
    if input["card"] == "expired":
        raise TaskError(f"order {input['order']}: the card has expired")
    return {"order": input["order"], "paid": "12.50"}


@task("mail.send", inputSchema=IMail)
def send(input: Any) -> str:
    """Send a mail."""
    return "sent"


@task("report.build", context=True)
def build(context: Any, input: Any) -> None:
    """Build a report, which takes its time."""
    context.progress(37, 120, "page 37 of the report")
    while not context.should_stop():
        time.sleep(0.05)


def mail(number: int) -> dict[str, Any]:
    """Return the input of a mail."""
    recipient = f"customer{number}@example.com"
    return {"recipient": recipient, "subject": "Your order", "copies": 1, "kind": "bill"}


def work_for_an_hour(service: TaskService) -> None:
    """Let an hour pass in which jobs were added and run, by a clock of our own."""
    chance = random.Random(12)
    now = time.time()
    order = 1000
    for minute in range(MINUTES):
        clock = now - 60.0 * (MINUTES - minute) + 20
        with patch("time.time", lambda clock=clock: clock):
            for _ in range(4 + minute // 8 + chance.randrange(6)):
                order += 1
                card = "expired" if chance.random() < 0.03 else "valid"
                service.add("shop.charge", {"order": order, "card": card})
                service.add("mail.send", mail(order))
            service.process(clock)
            transaction.commit()


@contextmanager
def shop(directory: Path) -> Iterator[ZODB.DB]:
    """Give a database with a service that has much to show, and works."""
    db = ZODB.DB(FileStorage(str(directory / "Data.fs")))
    connection = db.open()
    service = connection.root()["shop"] = TaskService()
    transaction.commit()
    work_for_an_hour(service)
    service.addCronJob("report.build", hour=(3,), dayOfWeek=(5, 6), timezone="Europe/Berlin")
    service.addCronJob("mail.send", mail(1), cron="*/15 8-18 * * 1-5", timezone="Europe/Berlin")
    service.add("mail.send", mail(7), delay=1800, note="remind the customer of the bill")
    service.cancel(service.add("mail.send", mail(8)))
    service.add("report.build", {"month": "October"})
    transaction.commit()
    service.startProcessing()
    until_runs(service)
    for number in range(3):
        service.add("mail.send", mail(2000 + number))
    transaction.commit()
    try:
        yield db
    finally:
        for job in service.list("processing").jobs:
            service.cancel(job.id)
        transaction.commit()
        service.stopProcessing(10)
        connection.close()
        db.close()


def until_runs(service: TaskService) -> None:
    """Wait until the report is being built, and has told how far it is."""
    while not len(service.progress):
        time.sleep(0.05)
        transaction.begin()


# -- the pictures --------------------------------------------------------------------------------


def take(driver: Any, base: str, name: str, path: str, width: int, height: int) -> None:
    """Take one picture."""
    driver.get(base + path)
    file = PICTURES / f"{name}.png"
    driver.execute_script(
        "for (const one of document.querySelectorAll('pre'))"
        "  one.textContent = one.textContent.replaceAll(arguments[0], arguments[1]);",
        str(ROOT),
        SHOWN_ROOT,
    )
    picture = Image.open(io.BytesIO(picture_of(driver, width, height))).convert("RGB")
    # With a palette of the most distant colours, so that the few red ones are not lost.
    palette = picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    palette.save(file, optimize=True)
    print(f"{file.relative_to(ROOT)}  {file.stat().st_size // 1024} kB")


def main() -> None:
    """Take all pictures."""
    with tempfile.TemporaryDirectory() as directory, shop(Path(directory)) as db:
        connection = db.open()
        service = connection.root()["shop"]
        [failed] = service.errors(limit=1).jobs
        [running] = service.list("processing").jobs
        pages = [
            ("jobs-page", "/jobs?size=10", 820),
            ("overview-page", "/", 860),
            ("job-page", f"/jobs/{failed.id}", 820),
            ("add-page", "/add?task=mail.send", 820),
            ("schedule-page", f"/schedules/{service.list('cronjob').jobs[-1].id}", 700),
        ]
        narrow = [("job-page-narrow", f"/jobs/{running.id}", 760)]
        connection.close()
        app = make_app(db, authorize=lambda request, permission: True)
        with served(app) as base:
            for is_dark, shots in ((False, pages), (True, [("overview-page-dark", "/", 860)])):
                with chromium(WIDTH, is_dark=is_dark) as driver:
                    for name, path, height in shots:
                        take(driver, base, name, path, WIDTH, height)
            with chromium(NARROW, is_dark=True) as driver:
                for name, path, height in narrow:
                    take(driver, base, name, path, NARROW, height)


if __name__ == "__main__":
    main()
