# SPDX-License-Identifier: ZPL-2.1
"""What one worker has in hand, whatever the store."""

from __future__ import annotations

import threading
from collections.abc import Callable

from lovely.remotetask.engine.identity import Identity
from lovely.remotetask.engine.protocol import Claim, Session, Stopping
from lovely.remotetask.engine.transactions import Transactor


class Hand:
    """The claims that a worker has in hand; see `protocol.Claims` for its attributes.

    :param identity: who the worker is.
    :param transact: runs its changes.
    :ivar lock: held by who claims and gives back.
    :ivar has_left: whether nothing is to be claimed any more.
    :ivar runs_in_turn: whether one thread runs all that is claimed, one after the other.
    :ivar desk: where several threads claim and write by turns, having `lock`; or None.
    :ivar threads: how many jobs the worker runs at the same time.
    """

    def __init__(
        self,
        identity: Identity,
        transact: Transactor,
        pause: Callable[[float], bool],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self.identity = identity
        self.transact = transact
        self.pause = pause
        self.clock = clock
        self.monotonic = monotonic
        self.in_hand: dict[int, Claim] = {}
        self.last_sign = monotonic()
        self.lock = threading.Lock()
        self.holds = False  # whether the store may know of claims of this worker
        self.has_left = False
        self.runs_in_turn = False
        self.desk: Session | None = None
        self.threads = 1
        self.ended: set[int] = set()  # of claims whose runs have ended, Python's ids

    def leave_desk(self) -> None:
        """Let the thread whose session is the desk end; return when nobody works there."""
        with self.lock:
            self.desk = None

    def check_stays(self) -> None:
        """Check that the worker may claim.

        :raises Stopping: all was given back, for good.
        """
        if self.has_left:
            raise Stopping

    def retire(self) -> None:
        """Count as dead: what could not be given back is free for whoever comes next."""
        self.identity.retire()

    def has(self, claim: Claim) -> bool:
        """Say whether this claim is in hand.

        A job may be, by another claim, that looks the same: one that was given back is claimed
        again for the same attempt.
        """
        return self.in_hand.get(claim.jobid) is claim

    def has_to_run(self, claim: Claim) -> bool:
        """Say whether this claim is in hand, and its run has not ended."""
        return self.has(claim) and id(claim) not in self.ended

    def let_go(self, claim: Claim) -> None:
        """Take a claim out of the hand, if it is there."""
        self.ended.discard(id(claim))
        if self.has(claim):
            del self.in_hand[claim.jobid]
