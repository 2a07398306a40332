# SPDX-License-Identifier: ZPL-2.1
"""The contracts of remote processors, their jobs, their scheduler and their workers.

Times are timezone-aware datetimes in UTC.  Ids are text.
"""

from __future__ import annotations

from zope.interface import Attribute, Interface
from zope.interface.common.mapping import IEnumerableMapping
from zope.schema import Bool, Choice, Datetime, Field, Float, Int, List, Object, Text, TextLine

from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    ERROR,
    PROCESSING,
    QUEUED,
    IService,
)

__all__ = [
    "CANCELLED",
    "COMPLETED",
    "ERROR",
    "JOB_STATUS_NAMES",
    "PROCESSING",
    "QUEUED",
    "ICron",
    "IDelay",
    "IJob",
    "IJobError",
    "IJobErrorMessage",
    "IJobFactories",
    "IJobs",
    "IMultiJobWorker",
    "IRemoteProcessor",
    "IScheduler",
    "ISchedulerItem",
    "ISchedulerWorker",
    "ISimpleJobWorker",
    "IWorker",
]

#: The statuses that jobs can have.
JOB_STATUS_NAMES = [QUEUED, PROCESSING, CANCELLED, COMPLETED, ERROR]


class IJobError(Interface):
    """One failure of a job: a text, ``[time] message``."""

    created = Datetime(title="Created", description="When the job failed.", required=True)

    tb = Text(title="Traceback", description="The traceback as text.", required=True)


class IJobErrorMessage(Interface):
    """The message of a failure: what the adapter of (job, exception) gives as text.

    Without an adapter it is the text of the exception.
    """

    def __str__():
        """Return the message."""


class IJob(Interface):
    """A job, or a factory that makes jobs like itself.

    A subclass has attributes of its own, which are stored with the job.  What a run changes in
    place in a list or a dict of the job is neither stored nor seen by the next run, unless it
    sets an attribute, or ``_p_changed`` to True.
    """

    __parent__ = Attribute("Where it stands, or None.")
    __name__ = Attribute("Its name there, or None.")

    input = Field(title="Input", required=False)

    output = Field(title="Output", description="What the job returned.", required=False)

    jobName = TextLine(
        title="Job name", description="The name of the factory that made it.", required=False
    )

    active = Bool(
        title="Active", description="A job that is not is left alone by workers.", default=True
    )

    status = Choice(title="Status", values=JOB_STATUS_NAMES, required=False)

    retryTime = Datetime(
        title="Retry time", description="Before that no worker takes the job.", required=False
    )

    retryDelay = Float(
        title="Retry delay", description="Seconds from a failure to the next run.", default=10.0
    )

    retryCounter = Int(title="Retry counter", description="Runs that have begun.", default=0)

    maxRetries = Int(title="Maximum of retries", description="Runs in all.", default=3)

    errors = List(
        title="Errors",
        description="What each failed run has raised, the first one first.",
        value_type=Object(schema=IJobError),
    )

    created = Datetime(title="Created", required=False)
    queued = Datetime(title="Queued", required=False)
    picked = Datetime(title="Picked", description="When a worker took it.", required=False)
    started = Datetime(title="Started", description="When its run began.", required=False)
    completed = Datetime(title="Completed", description="When it ended.", required=False)

    def __call__(remoteProcessor):
        """Do the work, and return the output.

        It runs in the worker's transaction, with what it writes, its output and its status; it
        must neither commit nor abort.

        :raises RemoteException: the job is an error, and is not repeated.
        :raises Exception: the job is repeated after ``retryDelay``, up to ``maxRetries`` runs.
        """

    def getJob(input=None):
        """Return a new job that is like this one.

        :param input: its input; None is that of this one.
        """

    def setError(error):
        """Append an exception to the errors."""


class IJobFactories(IEnumerableMapping):  # type: ignore[type-arg]
    """The factories of a remote processor: name -> `IJob`."""


class IJobs(IEnumerableMapping):  # type: ignore[type-arg]
    """The jobs of a remote processor: id -> `IJob`."""

    def add(job):
        """Add a job that a factory has made; return its id."""


class ISchedulerItem(Interface):
    """Says when jobs are to be added.

    Changes of what is stored take effect with the commit, and in the same transaction at once.
    """

    __parent__ = Attribute("Where it stands, or None.")
    __name__ = Attribute("Its name there, or None.")

    jobName = TextLine(title="Job name", description="The name of the factory.", required=True)
    title = TextLine(title="Title", required=False)
    description = Text(title="Description", required=False)
    input = Field(title="Input", description="The input of the jobs.", required=False)
    active = Bool(title="Active", default=False)
    nextCallTime = Datetime(title="Next call time", required=False)
    retryTime = Datetime(
        title="Retry time", description="Before that nobody pulls the item.", required=False
    )
    retryDelay = Float(
        title="Retry delay", description="Seconds the retry time lies ahead.", default=300.0
    )

    def getNextCallTime(callTime):
        """Return the next call time, and count a new one if `callTime` has come to it.

        :param callTime: an aware datetime.
        :returns: the stored one if it lies ahead of `callTime`; else the one that was stored
            before the new one was counted; None for an item that is not active.
        """

    def dump():
        """Return the state of the item, as a dict."""


class IDelay(ISchedulerItem):
    """An item whose jobs follow each other at a distance."""

    delay = Float(title="Delay", description="Seconds from one job to the next.", required=False)


class ICron(ISchedulerItem):
    """An item whose jobs are added at all times that fit each of the fields that are set."""

    minute = List(title="Minutes", value_type=Int(min=0, max=59), required=False)
    hour = List(title="Hours", value_type=Int(min=0, max=23), required=False)
    dayOfMonth = List(title="Days of the month", value_type=Int(min=1, max=31), required=False)
    month = List(title="Months", value_type=Int(min=1, max=12), required=False)
    dayOfWeek = List(
        title="Days of the week",
        description="Monday is 0.",
        value_type=Int(min=0, max=6),
        required=False,
    )


class IScheduler(IEnumerableMapping):  # type: ignore[type-arg]
    """The items of a remote processor: id -> `ISchedulerItem`."""

    def add(item):
        """Add an item; return its id.

        :raises ValueError: it can never be due.
        """

    def remove(item):
        """Remove an item.

        :raises KeyError: it is not here.
        """

    def updateRetryTime(data, callTime=None):
        """Return the retry time that an item would get if it was pulled; change nothing.

        :param data: what `ISchedulerItem.dump` has returned.
        :param callTime: an aware datetime; None is now.
        :returns: False when it cannot be pulled: it is not active, too early or locked.
        """

    def getNextCachedItem(callTime=None):
        """Return an item that was added in the current transaction and is due, or None.

        Its ``retryTime`` is set, and its ``nextCallTime`` left.
        """

    def pullNextSchedulerItem(callTime=None):
        """Return an item that is due, or None.

        One that was added in the current transaction as `getNextCachedItem` does; the next call
        time of another one is counted, so that nobody else gets it.
        """

    def reScheduleItem(item, callTime=None):
        """Count the next call time of an item anew."""

    def reScheduleItems(callTime=None):
        """Count the next call times of all items anew."""


class IRemoteProcessor(IService):
    """Runs jobs that are made by factories, when they are added or when a scheduler says so."""

    __parent__ = Attribute("Where it stands, or None.")
    __name__ = Attribute("Its name there, or None.")

    isProcessing = Bool(title="Is processing", description="In this process.", readonly=True)
    isScheduling = Bool(title="Is scheduling", description="In this process.", readonly=True)
    processorStartTime = Float(
        title="Processor start time",
        description="Seconds since the epoch; None while it is stopped.",
        required=False,
        readonly=True,
    )
    schedulerStartTime = Float(
        title="Scheduler start time",
        description="Seconds since the epoch; None while it is stopped.",
        required=False,
        readonly=True,
    )
    jobWorkerFactory = Attribute("Makes the worker: called with the processor and keywords.")
    jobWorkerArguments = Attribute("Its keywords: ``jobQuery``, ``waitTime``, ``maxThreads``.")
    schedulerWorkerFactory = Attribute("Makes the scheduler's worker, in the same way.")
    schedulerWorkerArguments = Attribute("Its keywords: ``waitTime``.")

    def addJobFactory(name, job):
        """Add a factory under a name.

        :raises ValueError: another factory has this name, whose jobs are of another class.
        """

    def getJobFactory(name):
        """Return a factory, or None."""

    def addJob(name, input=None):
        """Add a job; return its id.

        :param name: the name of its factory.
        :param input: its input; None is that of the factory.
        :raises ValueError: there is no such factory, or the input cannot be stored.

        Transaction: caller commits.
        """

    def cancelJob(jobid):
        """Take a job back; one that runs is asked to stop.  Others are left as they are."""

    def getJobStatus(jobid):
        """Return the status of a job.

        :raises KeyError: there is no such job.
        """

    def getJobResult(jobid):
        """Return a copy of the output of a job.

        :raises KeyError: there is no such job.
        """

    def getJobErrors(jobid):
        """Return the errors of a job, a list of `IJobError`.

        :raises KeyError: there is no such job.
        """

    def removeJobs(stati=None, allowed=None):
        """Remove jobs by their status; return how many there were of each.

        :param stati: a status or a list of them; None are those that are allowed.
        :param allowed: what may be asked for; None are those of jobs that have ended.
        :raises ValueError: a status is not allowed; then nothing is removed.

        Transaction: caller commits.
        """

    def pullNextJob(jobQuery=None, callTime=None):
        """Take the next job, for `processJob`; return it, or None.

        :param jobQuery: limits the jobs; see the documentation of the store.
        :param callTime: an aware datetime; None is now.

        Transaction: caller commits.
        """

    def processNextJob(jobQuery=None, callTime=None):
        """Take the next job and run it in the caller's transaction.

        :returns: False when there was none.
        :raises Exception: what the job has raised, if it is to be repeated.  Error and status
            are in the job by then, and nothing else of it is kept.

        Transaction: caller commits, whether it raised or not.
        """

    def processJobs(jobQuery=None, callTime=None):
        """Run jobs until none is left; see `processNextJob`.

        :returns: whether there was one.
        """

    def processJob(jobid):
        """Run a job that `pullNextJob` has taken; see `processNextJob`.

        :raises KeyError: there is no such job.
        :raises TypeError: it is not being processed, or by somebody else.
        """

    def startProcessor():
        """Let a thread of this process run jobs.

        Transaction: writes nothing.
        """

    def stopProcessor():
        """Let the thread end when the running jobs have."""

    def addScheduler(item):
        """Add an item to the scheduler; return its id."""

    def scheduleNextJob(callTime=None):
        """Add the job of the next item that is due; return its id, or None.

        :param callTime: an aware datetime; None is now.

        Transaction: caller commits.
        """

    def reScheduleItem(item, callTime=None):
        """Count the next call time of an item anew."""

    def reScheduleItems(callTime=None):
        """Count the next call times of all items anew."""

    def startScheduler():
        """Let a thread of this process add the jobs of items that are due.

        Transaction: writes nothing.
        """

    def stopScheduler():
        """Let the scheduler's thread end."""


class IWorker(Interface):
    """What a thread of a remote processor does: called, it works until it is stopped."""

    running = Bool(title="Running", description="Whether nobody has stopped it yet.", readonly=True)

    waitTime = Float(title="Wait time", description="Seconds between looks when idle.")

    def __call__():
        """Work until `stop` is called.

        Transaction: must not run in one; commits.
        """

    def stop():
        """Let it end."""


class ISchedulerWorker(IWorker):
    """Adds the jobs of items that are due."""

    def doScheduleNextJob():
        """Call `IRemoteProcessor.scheduleNextJob`, and log what it raises.

        :returns: the id of the job, None if there was none, True after a fault.

        Transaction: caller commits.
        """


class ISimpleJobWorker(IWorker):
    """Runs one job at a time."""

    def doProcessNextJob():
        """Call `IRemoteProcessor.processNextJob`, and log what it raises.

        :returns: whether there was a job.

        Transaction: caller commits.
        """


class IMultiJobWorker(IWorker):
    """Runs several jobs at a time."""

    maxThreads = Int(title="Maximum of threads", min=1)

    threads = Attribute("The threads that run jobs.")

    def doPullNextJob():
        """Call `IRemoteProcessor.pullNextJob`.

        Transaction: caller commits.
        """

    def doProcessJob(jobid):
        """Call `IRemoteProcessor.processJob`, log what it raises, and commit.

        Transaction: commits.
        """
