# SPDX-License-Identifier: ZPL-2.1
"""The proof that the demo's jobs and its catalog agree, entry by entry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from lovely.remotetask.command.demo.catalog import Catalog
from lovely.remotetask.command.demo.door import Door, Seen
from lovely.remotetask.command.demo.indexing import INDEX, MAX_REPORTS, REPORT
from lovely.remotetask.engine.service import Service
from lovely.remotetask.interfaces import COMPLETED
from lovely.remotetask.store.count import count_jobs


@dataclass
class Check:
    """One thing that must be true of jobs and catalog, and where it is not."""

    claim: str
    problems: list[str]


def prove(door: Door, service: Service, catalog: Catalog) -> list[Check]:
    """Check that the jobs and the catalog agree, entry by entry.

    Transaction: reads only.
    """
    seen = list(door.jobs(service))
    completed = [job for job in seen if job.name == INDEX and job.status == COMPLETED]
    replaced = {job.output["replaces"] for job in completed}
    jobs = {j.id: (j.input["path"], j.output["words"]) for j in completed if j.id not in replaced}
    documents = {file.id: (path, file.words) for path, file in catalog.documents.items()}
    return [
        Check(
            f"each of {len(jobs)} completed jobs has its document, with the words it counted",
            [
                f"job {id}: (path, words) is {job}, in the catalog {documents.get(id)}"
                for id, job in jobs.items()
                if job != documents.get(id)
            ],
        ),
        Check(
            f"each of {len(documents)} documents has its completed job",
            [f"{path}: no job {id}" for id, (path, _) in documents.items() if id not in jobs],
        ),
        *_prove_postings(catalog, documents),
        _prove_counts(service, seen),
        *(_prove_reports(catalog, seen) if door.has_report_jobs else ()),
    ]


def _prove_postings(catalog: Catalog, documents: Mapping[int, tuple[str, int]]) -> list[Check]:
    sums: Counter[int] = Counter()
    entries = 0
    for _, id, count in catalog.postings():
        sums[id] += count
        entries += 1
    return [
        Check(
            f"each of {entries} postings is of a document in the catalog",
            [f"document {id} is not there" for id in sums if id not in documents],
        ),
        Check(
            "the postings of each document add up to its word count",
            [
                f"{path}: {sums[id]} words in the postings, {words} in the document"
                for id, (path, words) in documents.items()
                if sums[id] != words
            ],
        ),
    ]


def _prove_counts(service: Service, seen: Iterable[Seen]) -> Check:
    records = Counter(job.status for job in seen)
    return Check(
        "the counts by status are those of the records",
        [
            f"{status}: {count} counted, {records[status]} records"
            for status, count in count_jobs(service).items()
            if count != records[status]
        ],
    )


def _prove_reports(catalog: Catalog, seen: Iterable[Seen]) -> Iterator[Check]:
    jobs = sum(job.name == REPORT and job.status == COMPLETED for job in seen)
    reports = len(catalog.reports)
    yield Check(
        f"each of {jobs} jobs that the scheduler has added for a report has written one",
        [] if reports == min(jobs, MAX_REPORTS) else [f"there are {reports} reports"],
    )
