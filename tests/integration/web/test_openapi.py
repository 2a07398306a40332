# SPDX-License-Identifier: ZPL-2.1
"""The document of the JSON API tells the truth: schemathesis tries it."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.web.api.face import CALLS
from remotejobs import Note
from workplace import Workplace

EXAMPLES = 5

# No schema can tell all that a time has to be, or a crontab, which tasks there are to follow, or
# what a remote processor has not: they may be refused.
WITH_MORE = {"addJob", "addSchedule", "editSchedule", "previewTimes"}
WITH_MORE |= {"addGroup", "ensureSchedule"}


def operations(site: Any) -> dict[str, Any]:
    schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", site.app)
    found = [result.ok() for result in schema.get_all_operations()]
    return {operation.definition.raw["operationId"]: operation for operation in found}


def test_every_call_is_told_with_the_permission_that_it_takes(site: Any) -> None:
    document = site.get("/openapi.json")
    told = {
        operation["operationId"]: (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert len(told) == len(CALLS)
    for call in CALLS:
        method, path, operation = told[call.name]
        assert (method, path) == (call.method, f"/api/v1{call.path}")
        assert f"`{call.permission}`" in operation["description"]
        if call.body is not None:
            Draft202012Validator.check_schema(dict(call.body))


@pytest.fixture
def tried(workplace: Workplace, make_site: Any) -> dict[str, Any]:
    """The site of a service of each door, with some jobs and a schedule, and their ids."""
    workplace.gate.set()
    with workplace.transaction() as root:
        service = root["tasks"]
        jobs = [service.add("echo", number) for number in range(3)]
        schedule = service.addCronJob("echo", minute=[5])
        root["remote"] = processor = RemoteProcessor()
        processor.addJobFactory("note", Note())
    return {"tasks": (jobs, schedule), "make": make_site}


@pytest.mark.parametrize("door", ["@tasks", "@remote"])
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_schemathesis_finds_nothing_untrue(
    tried: dict[str, Any], door: str, mode: GenerationMode, caplog: pytest.LogCaptureFixture
) -> None:
    site = tried["make"](services=door)
    for name, operation in operations(site).items():
        if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
            continue  # there is nothing that could be wrong
        unchecked = [positive_data_acceptance] if name in WITH_MORE else []
        attempt(operation.as_strategy(generation_mode=mode), unchecked)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def attempt(strategy: Any, unchecked: list[Any]) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @given(case=strategy)
    def run(case: Any) -> None:
        case.call_and_validate(excluded_checks=unchecked)

    run()
