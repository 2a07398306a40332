# SPDX-License-Identifier: ZPL-2.1
"""Several threads of one process, on a ``FileStorage``, beside peers with as many."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Any

import payload
import report
from interleave import Contender
from ours import Drain, TinyCommit
from peer import Naps, Peer
from peers import HueyThreads
from places import ThreadsPlace
from postgres_peers import ProcrastinateTasks

#: The first slot of the peers here.
FIRST_SLOT = payload.FIRST_PEER + 16


def measure(run: Any) -> None:
    """Compare threads, and lengths of jobs.

    :param run: the `campaign.Run`, which gets the rates.
    """
    extent = run.extent
    with ExitStack() as stack:
        contenders: list[Contender] = [] if "rates" in run.rates else [TinyCommit()]
        for job_ms in extent.job_ms:
            for threads in extent.threads:
                seconds = job_ms / 1000
                place = stack.enter_context(closing(ThreadsPlace(threads, seconds)))
                rate = max(1, threads) / seconds if seconds else 4_000.0
                contenders.append(Drain(report.threads_row(threads, seconds), place, rate=rate))
        contenders = stack.enter_context(run.opened(contenders))
        if extent.has_peers:
            for peer in stack.enter_context(run.opened(_peers(extent.threads))):
                at_once = peer.at_once
                contenders += [
                    Naps(report.peer_row(peer.name, ms / 1000), peer, ms / 1000, at_once)
                    for ms in extent.job_ms
                ]
        run.rates["threads"] = run.compare(contenders, extent.matrix_rounds)


def _peers(threads: list[int]) -> list[Peer]:
    numbers = [number for number in threads if number]
    kinds = (HueyThreads, ProcrastinateTasks)
    return [
        kind(number, FIRST_SLOT + len(numbers) * order + index)
        for order, kind in enumerate(kinds)
        for index, number in enumerate(numbers)
    ]
