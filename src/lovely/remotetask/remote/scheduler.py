# SPDX-License-Identifier: ZPL-2.1
"""The items of a scheduler, and what schedulers of all stores do.

An item that was *added in the current transaction* is pulled as it is: it is locked by its
``retryTime``, and its ``nextCallTime`` is left, for nobody else can see it.  Pulling a stored one
counts its next call time, so that of two who pull it only one can commit.
"""

from __future__ import annotations

import logging
import sys
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import zope.event
from persistent import Persistent
from zope.interface import implementer
from zope.location.location import Location

from lovely.remotetask.base.ownership import check_sound
from lovely.remotetask.base.reference import refusing
from lovely.remotetask.base.storable import check_storable
from lovely.remotetask.errors import InvalidArgument, InvalidInput, describe, is_true, shown
from lovely.remotetask.events import pass_over
from lovely.remotetask.remote.calltime import (
    adjustCallTime,
    checked_delay,
    checked_fields,
    in_utc,
    next_call_time,
    next_delay_time,
)
from lovely.remotetask.remote.interfaces import ICron, IDelay, IScheduler, ISchedulerItem
from lovely.remotetask.remote.values import Checked, check_seconds, check_time, set_attributes

__all__ = ["Cron", "Delay", "SchedulerBase", "adjustCallTime"]

log = logging.getLogger("lovely.remotetask.remote")

#: The fields of a `Cron`.
CRON_FIELDS = ("minute", "hour", "dayOfMonth", "month", "dayOfWeek")


def time_of_call(callTime: datetime | None) -> datetime:
    """Return the time of a call; None is now.

    :raises InvalidArgument: it is no aware datetime, or not within the years 2 to 9899.
    """
    return datetime.now(timezone.utc) if callTime is None else in_utc(callTime, "callTime")


def _tell(item: Any) -> None:
    """Tell the scheduler of an item that it has changed; count one that has begun to be active."""
    if not item.is_added:
        return
    if item.active and item.nextCallTime is None:
        item.getNextCallTime(datetime.now(timezone.utc))
    else:
        item.__parent__.note_change(item)


class SchedulerItem(Persistent, Location):
    """What the items share.  See `ISchedulerItem`.

    :param data: values of attributes by name.

    Stored: what is set, by name; ``__parent__``: the scheduler; ``_place`` float seconds since the
    epoch: where the scheduler has filed it, None where it is not, see `items.Scheduler`.
    """

    __name__: str | None = None
    __parent__: Any = None
    jobName: str | None = None
    title: str | None = None
    description: str | None = None
    input: Any = None
    active = Checked(False, is_true, _tell)
    nextCallTime = Checked(None, check_time, _tell)
    retryTime = Checked(None, check_time, _tell)
    retryDelay = Checked(300, check_seconds)
    _place: float | None = None

    def __init__(self, data: Mapping[str, Any] | None = None) -> None:
        set_attributes(self, data)

    @property
    def is_added(self) -> bool:
        """Whether it is in a scheduler: an abort can have taken it out again."""
        parent = self.__parent__
        if parent is None:
            return False
        if isinstance(parent, Persistent):
            check_sound(self, parent)
        return parent.get(self.__name__) is self

    def dump(self) -> dict[str, Any]:
        """See `ISchedulerItem`."""
        return {
            "_id": self.__name__,
            "__name__": self.__name__,
            "jobName": self.jobName,
            "active": self.active,
            "nextCallTime": self.nextCallTime,
            "retryTime": self.retryTime,
            "retryDelay": self.retryDelay,
        }

    def getNextCallTime(self, callTime: datetime) -> datetime | None:
        """See `ISchedulerItem`."""
        callTime = time_of_call(callTime)
        if not self.active:
            return None
        stored: datetime | None = self.nextCallTime
        if stored is None or stored <= callTime:
            self.nextCallTime = self.count_next_call(callTime)
        return self._told(stored)

    @abstractmethod
    def count_next_call(self, callTime: datetime) -> datetime | None:
        """Return the next call time that is later than a time."""

    def _told(self, stored: datetime | None) -> datetime | None:
        return stored

    def check_item(self) -> None:
        """Check that the item can be due.

        :raises InvalidArgument: it cannot.
        """
        if not self.jobName:
            raise InvalidArgument("a scheduler item needs a jobName: the factory of its jobs")
        check_storable(self.input, InvalidInput, "the input", True, exchange=refusing)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.__name__} for: {self.jobName!r}>"


def _checked_delay(value: Any, name: str) -> float | None:
    return None if value is None else checked_delay(value)


@implementer(IDelay)
class Delay(SchedulerItem):
    """An item whose jobs follow each other at a distance.  See `IDelay`."""

    delay = Checked(None, _checked_delay)

    def __init__(self, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(data)
        if self.nextCallTime is None:
            self.nextCallTime = self.count_next_call(datetime.now(timezone.utc))

    def count_next_call(self, callTime: datetime) -> datetime | None:
        return None if self.delay is None else next_delay_time(self.delay, callTime)

    def _told(self, stored: datetime | None) -> datetime | None:
        return self.nextCallTime if stored is None else stored

    def check_item(self) -> None:
        """See `SchedulerItem`."""
        super().check_item()
        if self.delay is None:
            raise InvalidArgument("a Delay needs a delay in seconds")


def _checked_field(value: Any, name: str) -> list[int]:
    return checked_fields(**{name: value or ()})[name]


@implementer(ICron)
class Cron(SchedulerItem):
    """An item whose jobs are added at the times that fit its fields.  See `ICron`."""

    minute = Checked((), _checked_field)
    hour = Checked((), _checked_field)
    dayOfMonth = Checked((), _checked_field)
    month = Checked((), _checked_field)
    dayOfWeek = Checked((), _checked_field)

    def __init__(self, data: Mapping[str, Any] | None = None) -> None:
        for name in CRON_FIELDS:
            setattr(self, name, [])
        super().__init__(data)
        self.check_fields()

    def check_fields(self) -> None:
        """Check that some day fits all fields.

        :raises InvalidSchedule: none does.
        """
        checked_fields(**{name: getattr(self, name) for name in CRON_FIELDS})

    def check_item(self) -> None:
        """See `SchedulerItem`."""
        super().check_item()
        self.check_fields()

    def count_next_call(self, callTime: datetime) -> datetime | None:
        return next_call_time(self, self.nextCallTime, callTime)


@implementer(IScheduler)
class SchedulerBase(Mapping[str, Any]):
    """What schedulers of all stores do.  See `IScheduler`."""

    __name__ = "scheduler"

    @abstractmethod
    def add(self, item: Any) -> str:
        """See `IScheduler`."""

    @abstractmethod
    def remove(self, item: Any) -> None:
        """See `IScheduler`."""

    @abstractmethod
    def added(self) -> Iterable[Any]:
        """Return the items that were added in the current transaction."""

    @abstractmethod
    def pull_stored(self, callTime: datetime) -> Any:
        """Return a stored item that is due, with its next call time counted, or None."""

    @abstractmethod
    def note_change(self, item: Any) -> None:
        """Take note that an item has changed."""

    def prepare(self, item: Any) -> None:
        """Make an item ready to be added.

        :raises InvalidArgument: it is no item, is somewhere already, or can never be due.
        """
        is_item: bool = ISchedulerItem.providedBy(item)
        if not is_item:
            raise InvalidArgument(f"{shown(item)} is no scheduler item")
        if item.is_added:
            raise InvalidArgument(f"{item!r} has been added already")
        item.check_item()
        if item.active and item.nextCallTime is None:
            item.getNextCallTime(datetime.now(timezone.utc))

    def updateRetryTime(
        self, data: Mapping[str, Any], callTime: datetime | None = None
    ) -> datetime | bool:
        """See `IScheduler`."""
        callTime = time_of_call(callTime)
        if not data["active"] or data["__name__"] not in self:
            return False
        for name in ("nextCallTime", "retryTime"):
            if data[name] is not None and data[name] > callTime:
                return False
        return callTime + timedelta(seconds=data["retryDelay"])

    def getNextCachedItem(self, callTime: datetime | None = None) -> Any:
        """See `IScheduler`."""
        callTime = time_of_call(callTime)
        for item in self.added():
            retryTime = self.updateRetryTime(item.dump(), callTime)
            if retryTime:
                item.retryTime = retryTime
                return item
        return None

    def pullNextSchedulerItem(self, callTime: datetime | None = None) -> Any:
        """See `IScheduler`."""
        callTime = time_of_call(callTime)
        item = self.getNextCachedItem(callTime)
        return self.pull_stored(callTime) if item is None else item

    def advance(self, item: Any, callTime: datetime) -> bool:
        """Count the next call time of an item that is pulled; say whether that could be done."""
        try:
            item.getNextCallTime(callTime)
        except Exception as error:  # of fields that somebody has stored past their checks
            self._lay_to_rest(item, error)
            return False
        item.retryTime = None
        return True

    def _lay_to_rest(self, item: Any, error: Exception) -> None:
        log.error("%r rests until it is changed: %s", item, describe(error))
        item.active = False
        item.nextCallTime = None

    def reScheduleItem(self, item: Any, callTime: datetime | None = None) -> None:
        """See `IScheduler`."""
        callTime = time_of_call(callTime)
        item.check_item()
        item.retryTime = None
        item.nextCallTime = item.count_next_call(callTime) if item.active else None

    def reScheduleItems(self, callTime: datetime | None = None) -> None:
        """See `IScheduler`."""
        callTime = time_of_call(callTime)
        for item in list(self.values()):
            try:
                self.reScheduleItem(item, callTime)
            except ValueError as error:  # of its fields, its delay or its input
                self._lay_to_rest(item, error)


def _reschedule_modified(event: Any) -> None:
    """Count an item anew that somebody says was modified."""
    # Who has not imported the interface cannot have made an event of it.
    module = sys.modules.get("zope.lifecycleevent.interfaces")
    if module is None or not module.IObjectModifiedEvent.providedBy(event):
        return
    item = event.object
    proxies = sys.modules.get("zope.security.proxy")
    if proxies is not None:  # who changes an item through a proxy was allowed to
        item = proxies.removeSecurityProxy(item)
    is_item: bool = ISchedulerItem.providedBy(item)
    if is_item and item.is_added:
        item.__parent__.reScheduleItem(item)


zope.event.subscribers.append(_reschedule_modified)
pass_over(_reschedule_modified)
