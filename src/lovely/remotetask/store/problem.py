# SPDX-License-Identifier: ZPL-2.1
"""What a check finds."""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """One thing that disagrees.

    :ivar jobid: the job it is about, or None.
    :ivar text: what it is, for people.
    """

    jobid: int | None
    text: str

    @property
    def is_mendable(self) -> bool:
        """Whether repairing mends it."""
        return True


class LeftAlone(Problem):
    """One that repairing leaves alone."""

    @property
    def is_mendable(self) -> bool:
        """See `Problem`."""
        return False
