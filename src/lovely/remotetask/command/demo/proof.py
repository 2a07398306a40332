# SPDX-License-Identifier: ZPL-2.1
"""The proof that the demo's jobs and its catalog agree, entry by entry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from lovely.remotetask.command.demo.catalog import Catalog
from lovely.remotetask.command.demo.tasks import INDEX
from lovely.remotetask.interfaces import COMPLETED
from lovely.remotetask.service import TaskService


@dataclass
class Check:
    """One thing that must be true of jobs and catalog, and where it is not."""

    claim: str
    problems: list[str]


def prove(service: TaskService, catalog: Catalog) -> list[Check]:
    """Check that the jobs and the catalog agree, entry by entry.

    Transaction: reads only.
    """
    completed = [j for j in service.jobs.values() if j.task == INDEX and j.status == COMPLETED]
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
        _prove_counts(service),
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


def _prove_counts(service: TaskService) -> Check:
    records = Counter(job.status for job in service.jobs.values())
    return Check(
        "the counts by status are those of the records",
        [
            f"{status}: {count} counted, {records[status]} records"
            for status, count in service.countJobs().items()
            if count != records[status]
        ],
    )
