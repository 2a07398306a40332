# SPDX-License-Identifier: ZPL-2.1
"""The demo's job objects."""

from __future__ import annotations

from lovely.remotetask.command.demo import indexing
from lovely.remotetask.engine.service import Service
from lovely.remotetask.remote.job import Job, record_of


def number_of(job: Job) -> int:
    """Return the number that the engine knows a job by: its id, a text, is made of it.

    Transaction: reads only.
    """
    record = record_of(job)
    assert record is not None
    return record.id


class IndexFile(Job):
    """Indexes one file, its input; see `indexing`."""

    def __call__(self, remoteProcessor: Service) -> dict[str, int | None]:
        """See `IJob`."""
        return indexing.index_file(remoteProcessor, number_of(self), self.input)


class FindFrequentWords(Job):
    """Finds the most frequent words; its input is their number; see `indexing`."""

    def __call__(self, remoteProcessor: Service) -> dict[str, int]:
        """See `IJob`."""
        return indexing.find_frequent_words(remoteProcessor, self.input)


class WriteReport(Job):
    """Writes down how far the catalog is; see `indexing`."""

    def __call__(self, remoteProcessor: Service) -> None:
        """See `IJob`."""
        indexing.write_report(remoteProcessor)
