# SPDX-License-Identifier: ZPL-2.1
"""The contract book: what services, jobs, tasks and processors promise.

Implementations point here with *See ITaskService*; contract text stands nowhere
else.  The errors named here are drawn as a tree in `lovely.remotetask.errors`.

Times that are stored are float seconds since the epoch, in UTC.  The attributes
``created``, ``started``, ``completed`` and ``scheduledFor`` read as timezone-aware
UTC datetimes.  A job id is an int in 1..2**31-1.
"""

from __future__ import annotations

from zope.interface import Attribute, Interface
from zope.interface.common.mapping import IEnumerableMapping
from zope.schema import (
    Bool,
    Bytes,
    Choice,
    Datetime,
    Dict,
    Field,
    Float,
    Int,
    List,
    Object,
    TextLine,
    Tuple,
)

#: Waits in the ready queue, or for the time of its next attempt.
QUEUED = "queued"
#: Claimed by a worker: running, or about to.
PROCESSING = "processing"
#: Taken back before it ran, or given up by its task after a cancel request.
CANCELLED = "cancelled"
#: Failed for good; `ITaskService.getError` says why.
ERROR = "error"
#: Done; `ITaskService.getResult` gives the result.
COMPLETED = "completed"
#: Runs once, when its delay is over.
DELAYED = "delayed"
#: Waits for the next time of its schedule.
CRONJOB = "cronjob"
#: Added, but nobody has called `ITaskService.startJob` yet.
STARTLATER = "start later"

STATUSES = (QUEUED, PROCESSING, CANCELLED, ERROR, COMPLETED, DELAYED, CRONJOB, STARTLATER)

#: The statuses of jobs that nothing will happen to any more: what `clean` removes.
FINAL_STATUSES = (CANCELLED, ERROR, COMPLETED)


class ITask(Interface):
    """What a job runs: a callable that is registered as a utility under a name."""

    inputSchema = Field(
        title="Input schema",
        description="An interface with the fields of the input; checked when a job is added.",
        required=False,
    )

    outputSchema = Field(
        title="Output schema",
        description="An interface with the fields of the result; checked when the task ends.",
        required=False,
    )

    def __call__(service, jobid, input):
        """Do the work and return the result.

        It runs in a transaction of the worker, which holds the task's own writes, the
        result and the status of the job.  The task must not commit, abort, begin or
        doom it, nor close its connection.  A task that raises keeps nothing of what it wrote.

        :param service: the `ITaskService` the job belongs to.
        :param jobid: the id of the job.
        :param input: what was given to `ITaskService.add`.
        :raises TaskError: the job is an error, for good.
        :raises RetryLater: the job is to be run again.
        :raises Exception: the job is run again as its retry policy says.
        """


class IJob(Interface):
    """The record of one job.  It is the lock of the job: whoever changes a job writes it."""

    __parent__ = Attribute("The `ITaskService` that holds the job, or None; it is not stored.")

    __name__ = Attribute("The id as a str; it is not stored.")

    id = Int(title="Id", description="1..2**31-1", required=True)

    task = TextLine(title="Task", description="The name of the task.", required=True)

    status = Choice(title="Status", values=STATUSES, required=True)

    input = Field(title="Input", description="What the task is called with.", required=False)

    output = Field(title="Output", description="What the task returned.", required=False)

    error = TextLine(
        title="Error",
        description="The message of the last attempt's failure; None when it did not fail.",
        required=False,
    )

    failures = Tuple(
        title="Failures",
        description="One `lovely.remotetask.job.Failure` for each attempt that failed.",
        required=False,
    )

    note = TextLine(
        title="Note", description="What was given to `ITaskService.add` for people.", required=False
    )

    priority = Int(
        title="Priority", description="Jobs with a higher one are claimed first.", required=True
    )

    unique_key = TextLine(
        title="Unique key",
        description="No other job that waits or runs has it; see `ITaskService.find`.",
        required=False,
    )

    lock = TextLine(
        title="Lock",
        description="Of the jobs with the same lock one runs at a time.",
        required=False,
    )

    expires = Datetime(
        title="Expires",
        description="The job is cancelled if it has not started by then.",
        required=False,
    )

    waits_for = TextLine(
        title="Waits for",
        description="What the job waits for beside its time and its turn, in words for people: a "
        "lock, a limit, the end of a pause, or a worker that has its task.  None: nothing.",
        readonly=True,
    )

    after = Tuple(
        title="After",
        description="The ids of the jobs that were to be completed first.",
        required=False,
    )

    awaits = Tuple(
        title="Awaits",
        description="Those of them that this job still waits for, or by which it has failed; "
        "its own id: its group has not ended.",
        required=False,
    )

    cause = Int(
        title="Cause",
        description="The id of the job whose `on_success` or `on_error` this one is, if any.",
        required=False,
    )

    group = Int(
        title="Group",
        description="The id of the group that the job belongs to, or ends, if any.",
        required=False,
    )

    attempt = Int(title="Attempt", description="How often the job was claimed.", required=True)

    deaths = Int(
        title="Deaths",
        description="How many attempts ended with the death of the process, in the whole life of "
        "the job.",
        required=True,
    )

    conflicts = Int(
        title="Conflicts",
        description="How often a run was repeated because of a write conflict.",
        required=True,
    )

    is_cancel_requested = Bool(
        title="Is cancel requested",
        description="Whether `ITaskService.cancel` has asked the job to stop, which runs.  A task "
        "that looks at its own job sees it by `TaskContext.is_cancelled`.",
        readonly=True,
    )

    created = Datetime(title="Created", description="When the job was added.", required=True)

    started = Datetime(title="Started", description="When the last attempt was claimed.")

    completed = Datetime(title="Completed", description="When the job reached a final status.")

    scheduledFor = Datetime(
        title="Scheduled for",
        description="When the job is due; None for a job that waits for no time.",
        required=False,
    )


class ICronJob(IJob):
    """A job that waits for a time: over and over (a schedule), or once (a delay)."""

    minute = Tuple(
        title="Minutes", description="0..59", value_type=Int(), required=False, default=()
    )

    hour = Tuple(title="Hours", description="0..23", value_type=Int(), required=False, default=())

    dayOfMonth = Tuple(
        title="Days of the month",
        description="1..31",
        value_type=Int(),
        required=False,
        default=(),
    )

    month = Tuple(title="Months", description="1..12", value_type=Int(), required=False, default=())

    dayOfWeek = Tuple(
        title="Days of the week",
        description="0..6, Monday is 0",
        value_type=Int(),
        required=False,
        default=(),
    )

    delay = Float(title="Delay", description="Seconds; None for a schedule.", required=False)

    cron = TextLine(
        title="Cron expression", description="In place of the five sets.", required=False
    )

    timezone = TextLine(title="Time zone", description="IANA name; None is UTC.", required=False)

    key = TextLine(
        title="Key", description="Given to `ITaskService.ensure`, or None.", required=False
    )

    is_declared = Bool(
        title="Is declared",
        description="Whether the decorator `task` has declared the schedule.",
        required=True,
    )

    missed = Int(title="Missed", description="How many slots passed without a run of their own.")

    def update(
        minute=(),
        hour=(),
        dayOfMonth=(),
        month=(),
        dayOfWeek=(),
        delay=None,
        timezone=None,
        cron=None,
    ):
        """Replace the whole schedule: a field that is not given becomes free.

        The service knows nothing of it until `ITaskService.reschedule` is called.  While the
        job runs the new schedule is kept apart, and takes effect when the run has ended.

        :raises InvalidSchedule: see `ITaskService.addCronJob`.

        Transaction: caller commits.
        """

    def timeOfNextCall(now=None):
        """Return the next time of the schedule that is later than `now`.

        :param now: seconds since the epoch; None is the present.
        :returns: seconds since the epoch; for a delay, `now` plus the delay.
        :raises InvalidArgument: `now` does not lie within the years 1970 to 9899.

        Transaction: reads only.
        """


class IService(Interface):
    """What keeps jobs and runs them: autostart and the command look for it, and after it."""

    def startAll():
        """Let threads of this process do all that the service does by itself.

        :returns: False if they do already.

        Transaction: writes nothing.
        """

    def addNamed(name, input=None):
        """Add a job; return its id.

        :param name: the name of what is to be done.
        :raises ValueError: it is not known here, or does not take the input.

        Transaction: caller commits.
        """


class ITaskService(IService):
    """Jobs, their queue, and the thread that works on them.

    What makes no sense is refused by an error of `lovely.remotetask.errors`, and then nothing is
    changed; most of these errors are ValueErrors.  A setting is checked when it is set
    (InvalidArgument), and one that was stored before and makes no sense is read as its default.
    Where transactions are begun explicitly, and none is, `transaction.interfaces.NoTransaction` is
    raised by what writes.
    """

    jobs = Object(
        title="Jobs", description="All jobs by id.", schema=IEnumerableMapping, readonly=True
    )

    taskInterface = Field(
        title="Task interface", description="The interface that tasks are registered for."
    )

    processorFactory = Field(
        title="Processor factory",
        description="A callable (db, servicePath, **processorArguments) -> `IProcessor`.",
    )

    processorArguments = Dict(
        title="Processor arguments", description="Keywords for the factory.", key_type=TextLine()
    )

    lease_seconds = Float(
        title="Lease",
        description="Seconds without a sign of life after which a worker counts as dead.",
        min=0.1,
    )

    max_deaths = Int(
        title="Most deaths",
        description="Deaths of the process that ran it after which a job is an error; of a cron "
        "job those since it last completed a run.",
        min=1,
    )

    limits = Dict(
        title="Limits",
        description="Name of a task -> how many of its jobs run at once, over all processes.  Set "
        "a dict; what is returned is a copy.",
        key_type=TextLine(),
        value_type=Int(min=1),
    )

    retention = Dict(
        title="Retention",
        description="Final status -> `lovely.remotetask.Retention`: what is kept, how long.  "
        "Another status raises JobIsLive.",
    )

    max_input_bytes = Int(
        title="Largest input", description="Bytes, roughly; None sets no bound.", required=False
    )

    max_input_depth = Int(
        title="Deepest input", description="Levels; None sets no bound.", required=False
    )

    around = Tuple(
        title="Around",
        description="Names of what is put around each job, from the outermost to the innermost; "
        "see `lovely.remotetask.register_around`.",
        value_type=TextLine(),
    )

    log_level = Int(
        title="Log level",
        description="Of what jobs log, lines of this level of `logging` and above are kept; None "
        "keeps none.",
        required=False,
    )

    piped = Bool(
        title="Piped",
        description="Whether quick jobs that have written nothing to a database may share the "
        "commit that says that they have ended, and their thread may go on before it.",
    )

    def getAvailableTasks():
        """Return a dict of the tasks that jobs can be added for: name -> task.

        Transaction: reads only.
        """

    def add(
        task,
        input=None,
        startLater=False,
        retry=None,
        delay=None,
        at=None,
        note=None,
        priority=0,
        unique_key=None,
        lock=None,
        expires=None,
        after=(),
        on_success=None,
        on_error=None,
    ):
        """Add a job, and return its id.

        The job is part of the caller's transaction: it exists once that is committed,
        and never if it is aborted.

        :param task: the name of a registered task, or the function that `task` has registered.
        :param input: any value that ZODB can store.  A copy is stored, but of persistent
            objects in it: what it holds now counts.  In the place of those that have an adapter
            to `IReference` this is stored.
        :param startLater: the job waits for `startJob`.
        :param retry: a `RetryPolicy` for this job, in place of the task's.
        :param delay: seconds, 0 or more, that the job waits before it runs.
        :param at: an aware datetime: the job waits until then; in the past it is due at once.
        :param note: a text for people, which stays with the job: up to 1,000 characters.
        :param priority: an int of -100 to 100.  Jobs with a higher one are claimed first, and
            within one those that came first.  Others may wait for as long as there are some.
        :param unique_key: a text of up to 200 characters.  While a job with this key waits or
            runs, its id is returned and no job is added, whatever its task and input are; the
            caller's commit meets a conflict if that job has gone on meanwhile.
        :param lock: a text of up to 200 characters.  Of the jobs with the same lock one runs at a
            time, over all processes, in the order in which they were added.
        :param expires: seconds from now, or an aware datetime: if the job has not started by then
            it is cancelled.
        :param after: the id of a job, or up to 100 ids: the new one is ``queued``, and waits until
            all of these are completed.  If one of them is an error, cancelled or removed before,
            now or later, the new one becomes an error that names it.
        :param on_success: a task, or (task, input): added as a job of its own in the commit that
            completes this one, once.  Its ``cause`` is this job.
        :param on_error: the same for the commit by which this job is an error, after all its
            attempts.  Of a job that was cancelled neither is added.
        :raises TaskNotFound: no task has this name; a ValueError.
        :raises JobNotFound: there is no job with an id in `after`; a KeyError.
        :raises JobUnusable: such a job's record cannot be read in this process.
        :raises InvalidInput: the input breaks the task's schema or cannot be stored, as with a
            persistent object of another connection.
        :raises InvalidArgument: `retry` is no policy that can be stored, or the name of the task
            cannot be written; another argument makes no sense, as `after` a cron job, which is
            never completed; several of `delay`, `at`, `startLater` and `after` are given, or the
            job would expire before it is due; or the function is registered under several names.
        :raises StrayObject: the connection has lost track of the database, as after a crash of
            a ZEO server; a TransientError: repeat the transaction.  So may the commit.

        Transaction: caller commits.
        """

    def add_many(task, inputs, retry=None, priority=0):
        """Add a job for each input, and return their ids.

        Adding a hundred jobs in one commit is several times as fast as a commit for each.

        :param inputs: one input a job; see `add`.
        :raises TaskNotFound: no task has this name; a ValueError.
        :raises InvalidInput: one of them cannot be accepted, or they are one text; then no job
            is added.
        :raises InvalidArgument: see `add`.

        Transaction: caller commits.
        """

    def add_group(task, inputs, then, retry=None, priority=0, lock=None):
        """Add a job for each input, and one that runs when all of these have ended; return its id.

        The id is that of the group too.  The last job runs once, however its members have ended,
        after that of the last one was committed: `TaskContext.group` tells it what they have come
        to.  Until then it is ``queued``, and waits, as with `add` and ``after``; without inputs
        it waits for nothing.  When it is removed the group is gone.

        :param inputs: one input a member; see `add`.
        :param then: a task, or (task, input).
        :param retry: a `RetryPolicy` for the members.
        :param priority: that of all these jobs, the last one too; see `add`.
        :param lock: that of the members, of which then one runs at a time; see `add`.
        :raises TaskNotFound: no task has such a name; a ValueError.
        :raises InvalidInput: an input cannot be accepted, or the inputs are one text; then no job
            is added.
        :raises InvalidArgument: see `add`.

        Transaction: caller commits.
        """

    def group(groupid):
        """Return how far a group is.

        It tells ``total``, ``completed``, ``errors``, ``cancelled`` (or removed by hand), ``done``
        (all three) and ``is_ended``.  To iterate over it yields (``jobid``, ``status``,
        ``result``) of the members, in the order of their inputs, which are loaded as they are
        asked for.  Its cost does not grow with the results.

        :raises JobNotFound: there is no such job; a KeyError.
        :raises InvalidArgument: it ends no group.

        Transaction: reads only.
        """

    def addCronJob(
        task,
        input=None,
        minute=(),
        hour=(),
        dayOfMonth=(),
        month=(),
        dayOfWeek=(),
        delay=None,
        timezone=None,
        cron=None,
        retry=None,
        priority=0,
        lock=None,
    ):
        """Add a job that runs at the times of a schedule, or once after a delay.

        The sets must *all* match (other than in cron, where one of the two day fields is
        enough).  Fields finer than the finest one given start at their first value:
        ``hour=(3,)`` is 03:00.  Coarser ones are free; with no field at all the job runs
        every minute.

        :param minute: ints in 0..59.
        :param hour: ints in 0..23.
        :param dayOfMonth: ints in 1..31.
        :param month: ints in 1..12.
        :param dayOfWeek: ints in 0..6; Monday is 0.
        :param delay: seconds, 0 or more, counted from now: the job runs once.
        :param timezone: an IANA name; None is UTC.
        :param cron: an expression of five fields with their usual meaning, in place of
            the sets, such as ``*/5 8-18 * * 1-5``.
        :raises InvalidSchedule: a field is malformed, or no time can ever match; a
            ValueError, like the errors of `add`.

        Transaction: caller commits.
        """

    def ensure(
        key,
        task,
        input=None,
        minute=(),
        hour=(),
        dayOfMonth=(),
        month=(),
        dayOfWeek=(),
        delay=None,
        timezone=None,
        cron=None,
        retry=None,
    ):
        """Let there be a schedule with this key, as it is told here; return the id of its job.

        For each deployment to call, and each start of an application: what is there already is
        left alone, and what is there otherwise is changed, its task and its input too; nothing is
        written if nothing is to be changed.  Of two who make the same one at once only one
        commits, and the other finds it when the transaction is repeated.  The next run is counted
        from now on if the times are others than before.  While the job runs a change is kept apart,
        and takes effect when the run has ended.

        A job that has ended, or was asked to stop, has no claim to its key any more: there will
        be another one.

        :param key: a str of 1 to 1,000 characters, of your choice.
        :raises InvalidArgument: see `add`; the key makes no sense.
        :raises InvalidSchedule: see `addCronJob`, whose arguments these are.
        :raises JobUnusable: the record of its job cannot be read and written in this process.

        Transaction: caller commits.
        """

    def ensure_declared():
        """Let there be the schedules that tasks declare by ``@task(cron=...)``.

        Each worker does that when it starts, in a transaction of its own, so that hardly anybody
        has to call it.  The key of such a schedule is the name of its task.  One that has failed
        for good is left until its declaration changes; one that cannot be is logged.

        :returns: a dict of the ids of their jobs by key.

        Transaction: caller commits.
        """

    def remove_schedule(key):
        """End the schedule with this key; say whether there was one.

        Its job is cancelled, or asked to stop if it runs, and the key is free.

        :raises InvalidArgument: the key makes no sense.
        :raises JobUnusable: the record of its job cannot be read and written in this process.

        Transaction: caller commits.
        """

    def schedules():
        """Return a list of all schedules, with and without a key: when they run, and have run.

        Of each ``id``, ``key``, ``task``, ``schedule``, ``timezone``, ``status``, ``next_run``,
        ``last_run``, ``outcome``, ``error``, ``is_paused`` and ``is_declared`` are told, see
        `lovely.remotetask.engine.schedules.ScheduleState`.  Delayed jobs are among them if they
        have a key.  What cannot be read here is left out.

        Transaction: reads only.
        """

    def startJob(jobid):
        """Queue a job that was added with ``startLater``.

        :returns: True, or False when the job does not wait for it.
        :raises JobNotFound: a KeyError.
        :raises JobUnusable: its record cannot be read and written in this process.

        Transaction: caller commits.
        """

    def reschedule(jobid):
        """Count the next time of a cron or delayed job anew, after its `ICronJob.update`.

        One that runs counts anew when its run has ended.

        :raises JobNotFound: a KeyError.
        :raises JobUnusable: its record cannot be read and written in this process.
        :raises InvalidArgument: the job waits for no time; a ValueError.

        Transaction: caller commits.
        """

    def retry(jobid, input=...):
        """Let a job that is an error or was cancelled run again.

        It is due at once, with the input that it had, and with as many attempts as a new job; its
        failures are kept, and its attempts are counted on.  A delayed job does not wait again, and
        a schedule goes on after this run.  One that was to wait for others waits for those that
        are not completed.

        :param input: another input, for which the task must be registered here; see `add`.
        :raises JobNotFound: a KeyError.
        :raises JobUnusable: its record cannot be read and written in this process.
        :raises InvalidArgument: the job waits, runs or is completed, another one is the schedule
            with its key by now, or it is to wait for one that is an error, was cancelled or is
            gone; a ValueError.
        :raises UniqueKeyTaken: another job has its unique key by now; a ValueError.
        :raises InvalidInput: the input cannot be accepted; a ValueError.
        :raises TaskNotFound: an input was given, and the task is not registered; a ValueError.
        :raises UnknownZone: this machine does not know the time zone of its schedule.

        Transaction: caller commits.
        """

    def find(unique_key):
        """Return the id of the job that waits or runs with a unique key; None if there is none.

        :raises InvalidArgument: it can be no key; a ValueError.

        Transaction: reads only.
        """

    def retry_all(task=None, before=None, limit=500):
        """Let jobs that are errors run again, those that ended first; return their number.

        To repeat a great many jobs, call this with a `before` and commit, until it returns 0.
        Without `before` those that fail once more are repeated once more.  Jobs whose unique key
        another one has by now are passed over.

        :param task: only jobs of the task with this name; None is any.  The errors of others are
            looked at, and take time.
        :param before: seconds since the epoch: only jobs that ended before; None is all.
        :param limit: how many jobs at the most; 1 or more.
        :raises InvalidArgument: one of them makes no sense; a ValueError.

        Transaction: caller commits.
        """

    def run_now(jobid):
        """Let a job that waits for a time run at once: a delayed job, a schedule, a repeat.

        The run is one more for a schedule, whose next time stays what it is.  A job that is ready
        stays in its place.

        :raises JobNotFound: a KeyError.
        :raises JobUnusable: its record cannot be read and written in this process.
        :raises InvalidArgument: the job runs, has ended, or waits for `startJob` or for other jobs;
            a ValueError.

        Transaction: caller commits.
        """

    def undo(jobid, by=None):
        """Undo a completed job: all that its task has written, its result, and its status.

        They were one commit, which the storage takes back, if nobody has written to the same
        objects since.  The job is ``cancelled`` then, with a note that says who it was and when;
        its failures, its attempts and its log are kept.  It does not run again by itself, but by
        `retry`.  What the task has done outside of this database stays.

        :param by: who does it, for the note; None is the user of the process, and the machine.
        :raises JobNotFound: a KeyError.
        :raises JobUnusable: its record cannot be read in this process.
        :raises InvalidArgument: the job is not completed; a ValueError.
        :raises CannotUndo: what it has written was changed since, its transaction was packed away
            or has run other jobs too, or the storage keeps no history.  Nothing is changed.
        :raises TransactionInProgress: the caller's transaction has changes.
        :raises ServiceNotStored: the service is in no database, or not committed yet.

        Transaction: must not run in one with changes; commits.
        """

    def pause(task=None):
        """Let no job be claimed any more, or none of one task, in any process.

        What runs goes on, and so does what was claimed.  A worker heeds it from its next claim on;
        one that is committed at the same moment can still come to pass.  Jobs can be added all the
        same.  A paused task's jobs are set aside when they come to be claimed.

        :param task: the name of a task, which need not be registered here; None is all tasks.
        :raises InvalidArgument: it can be no name; a ValueError.

        Transaction: caller commits.
        """

    def resume(task=None):
        """Let jobs be claimed again, after `pause`.

        :param task: the name of a task; None takes back each pause, of whatever tasks.
        :raises InvalidArgument: it can be no name; a ValueError.

        Transaction: caller commits.
        """

    def list_paused():
        """Return a list of the names of the tasks that are paused; None stands for all tasks.

        Transaction: reads only.
        """

    def clean(status=FINAL_STATUSES):
        """Remove all jobs with one of these statuses.

        One whose worker has yet to note that it has ended is no longer counted, and is removed
        by the worker.

        :param status: a list of final statuses.
        :returns: None.
        :raises InvalidArgument: there is no such status; a ValueError.
        :raises JobIsLive: a status of jobs that still wait or run is among them; a
            ValueError, and nothing is removed.

        Transaction: caller commits.
        """

    def remove_oldest(status, limit=None, before=None):
        """Remove jobs with a final status, those that ended first; return their number.

        To clean a great many jobs, call this with a limit and commit, until it returns 0.

        :param limit: how many jobs to remove at the most; None is all.
        :param before: seconds since the epoch: only jobs that ended before; None is all.
        :raises JobIsLive: the status is not a final one; a ValueError.
        :raises InvalidArgument: a number is out of range; a ValueError.

        Transaction: caller commits.
        """

    def cancel(jobid):
        """Take a job back.

        A job that waits is cancelled at once.  A running one is asked to stop: its task
        sees that in its context, see `lovely.remotetask.task.TaskContext`.

        :returns: None, whatever came of it: the job's status is ``cancelled`` then, or
            `IJob.is_cancel_requested` is true, or it was too late, or there is no such job.
        :raises JobUnusable: its record cannot be read and written in this process.

        Transaction: caller commits.
        """

    def getStatus(jobid):
        """Return the status of a job.

        :raises JobNotFound: a KeyError.
        :raises JobUnusable: its record cannot be read in this process.

        Transaction: reads only.
        """

    def getResult(jobid):
        """Return a copy of what the task returned; None as long as there is nothing.

        :raises JobNotFound: a KeyError.
        :raises JobUnusable: its record cannot be read in this process.

        Transaction: reads only.
        """

    def getError(jobid):
        """Return why the last attempt failed, as a str; ``'None'`` when it did not.

        :raises JobNotFound: a KeyError.
        :raises JobUnusable: its record cannot be read in this process.

        Transaction: reads only.
        """

    def getProgress(jobid):
        """Return the last `lovely.remotetask.job.Progress` of a running job, or None.

        :raises JobNotFound: a KeyError.
        :raises JobUnusable: its record cannot be read in this process.

        Transaction: reads only.
        """

    def getLog(jobid):
        """Return what the runs of a job have logged: a list of lines, the oldest first.

        Of each ``time`` (seconds since the epoch), ``level`` (its name), ``attempt`` and
        ``text`` are told.  The last 200 lines are kept, or fewer that are long; then the first
        one says how many are missing.  Those of a job that runs come about a second late.

        :raises JobNotFound: a KeyError.
        :raises JobUnusable: its record cannot be read in this process.

        Transaction: reads only.
        """

    def wait(jobid, timeout_seconds=None):
        """Wait until a job has ended, and return its status.

        It looks through a connection of its own, and is woken by the commit that ends the job where
        the storage tells of commits; RelStorage is asked four times a second.  Then the caller's
        transaction sees what there is now, as if it had just begun.  A task must not wait for a job
        of its own service: there may be no other worker to run it.  A schedule does not end.

        :param timeout_seconds: how long to wait at the most; None is for ever.
        :returns: when the time is over, the status of a job that has not ended.
        :raises TransactionInProgress: the caller's transaction has changes, such as a job that
            was just added: commit them first.
        :raises ServiceNotStored: the service is in no database, or not committed yet.
        :raises JobNotFound: a KeyError; also if the job is removed meanwhile.
        :raises JobUnusable: its record cannot be read in this process.
        :raises InvalidArgument: the id or the timeout makes no sense; a ValueError.

        Transaction: must not run in one with changes; writes nothing.
        """

    def wait_all(jobids, timeout_seconds=None):
        """Wait until all of these jobs have ended; return a dict of their statuses by id.

        See `wait`; the time is that for all of them together.

        Transaction: must not run in one with changes; writes nothing.
        """

    def wait_result(jobid, timeout_seconds=None):
        """Wait until a job has ended, and return a copy of its result.

        See `wait`.

        :raises JobFailed: the job is an error, or was cancelled; its text has the traceback of
            the last failure.
        :raises JobNotDone: the job has not ended in time; a TimeoutError.

        Transaction: must not run in one with changes; writes nothing.
        """

    def job(jobid):
        """Return the `IJob` with all that is known of a job.

        :raises JobNotFound: a KeyError.
        :raises JobUnusable: its record cannot be read in this process.

        Transaction: reads only.
        """

    def list(status=None, task=None, order="newest", after=None, limit=50):
        """Return a page of jobs: ``jobs``, and ``next``, with which the next page is asked for.

        Jobs are ordered by a time, and those with the same time by their ids.  That of jobs that
        have ended is when they did; of those that run, when they were claimed; of those that
        wait for a time, when they are due; of those that are ready or are to be started later,
        when they were added.  Jobs that are set aside, as their task is not registered or paused,
        count with the time when they were added.  So ``"newest"`` begins with what is to come
        last, and ``"oldest"`` with what has ended first; of one status as of all together.  (A job
        that became ready long after it was added counts with about the time when it became so.)

        What a page costs does not grow with the number of jobs.  It looks at 1,000 entries of the
        indexes at the most, so with a `task` it may have few jobs, or none, and a ``next`` all the
        same; it is the last one when ``next`` is None.  Between two pages jobs move on: one that
        has can come twice or not at all.  Jobs whose records cannot be read here are left out.

        :param status: only jobs with this status; None is any.
        :param task: only jobs of the task with this name; None is any.
        :param order: ``"newest"`` or ``"oldest"``: what comes first.
        :param after: the ``next`` of the page before, a str; None is the first page.
        :param limit: how many jobs, 1..1000.
        :raises InvalidArgument: one of them makes no sense; a ValueError.

        Transaction: reads only.
        """

    def errors(task=None, order="newest", after=None, limit=50):
        """Return a page of the jobs that are errors; see `list`.

        Transaction: reads only.
        """

    def list_workers():
        """Return a list of the workers that hold jobs.

        Of each ``id``, ``host``, ``pid``, ``held``, ``is_inline``, ``last_sign`` and ``threads``
        are told, see `lovely.remotetask.store.worker.WorkerState`.

        A worker that has nothing to do writes nothing, so nobody can see it from elsewhere.  One
        that runs a long job gives a sign several times in each lease; of a longer silence its
        death is to be feared.

        Transaction: reads only.
        """

    def countJobs():
        """Return a dict of the number of jobs by status; the cost does not grow with them.

        Jobs that are set aside, as their task is not registered here, are counted by their status.

        Transaction: reads only.
        """

    def hasJobsWaiting(now=None):
        """Say whether a job is ready to be claimed.

        :param now: seconds since the epoch; None is the present.
        :raises InvalidArgument: `now` does not lie within the years 1970 to 9899.

        Transaction: reads only.
        """

    def claimNextJob(now=None):
        """Claim the next job, and return its id, or None.

        It is for `processNext`, in this process.  Another process, or the next one, gives back
        what was claimed a lease ago and has not been run: that is no attempt and no death.

        :raises InvalidArgument: see `hasJobsWaiting`.

        Transaction: caller commits.
        """

    def processNext(now=None, jobid=None):
        """Run one job: the one that was claimed as `jobid`, or the next one.

        :returns: True, or False when there was nothing to run.
        :raises CannotTakeBack: the job has failed, and something without savepoints had
            joined the transaction before: abort it.
        :raises transaction.interfaces.TransientError: the job has met a conflict, or raised such an
            error: repeat the transaction, which is doomed.  What a storage that is away has raised
            in the job comes out likewise.
        :raises JobNotFound: there is no job `jobid`.
        :raises InvalidArgument: see `hasJobsWaiting`.

        Transaction: caller commits.  The job runs in the caller's transaction; of a job
        that fails nothing is kept but its error.
        """

    def process(now=None):
        """Run all jobs that are ready.

        Repeats that would come within a second follow at once.  Once a data manager without
        savepoints has joined the transaction, one job is run a call: commit between them.

        :raises CannotTakeBack: as with `processNext`.
        :raises transaction.interfaces.TransientError: likewise.
        :raises InvalidArgument: see `hasJobsWaiting`.

        Transaction: caller commits, as with `processNext`.
        """

    def startProcessing():
        """Start the thread that works on the jobs; nothing happens if it runs already.

        It is called again after every start of the application.  A service that is not committed
        yet starts when the transaction is that stores it, and never if that is aborted, or rolled
        back to a savepoint from before this call.  In the main thread it sets
        a handler for SIGTERM and SIGHUP, if there is none, that gives back what runs before the
        process ends; ``REMOTETASK_SIGTERM=off`` in the environment keeps it from that.

        :raises ServiceNotStored: the service is in no database, and no transaction is about to
            store it.
        :raises OldRecord: lovely.remotetask 0.5 has written it, as with all that uses a service.
        :raises InvalidArgument: the factory does not take the arguments that are set.

        Transaction: writes nothing.
        """

    def stopProcessing(timeout_seconds=None):
        """Stop the thread: it finishes the job it runs, and gives back what it claimed.

        :param timeout_seconds: how long to wait for that; None does not wait.
        :returns: None.
        :raises InvalidArgument: the timeout is no number of 0 or more.

        Transaction: writes nothing.
        """

    def isProcessing():
        """Say whether a thread of this process works on the jobs.

        Transaction: reads only.
        """


class IProcessor(Interface):
    """The owner of the threads of one service in this process."""

    running = Bool(title="Running", description="Whether the loop goes on.", readonly=True)

    waitTime = Float(title="Wait time", description="Seconds between looks when idle.")

    def __call__():
        """Work until `stop` is called: the loop of the service's thread.

        Transaction: must not run in one; commits.
        """

    def stop():
        """Ask the loop to end.

        Transaction: writes nothing.
        """

    def processNext(jobid=None):
        """Run one job: the one that was claimed as `jobid`, or the next one.

        :returns: True, or False when there was nothing to run.
        :raises KeyboardInterrupt: Ctrl-C, in the main thread; the job is given back.

        Transaction: must not run in one; commits.
        """


class IJobEvent(Interface):
    """Something has happened to a job, and was committed.

    Subscribers of `zope.event`, and handlers in the global component registry, are told in the
    process that did it, once, in the thread that has committed.  They must leave the transaction
    of that thread alone, and are given plain data.  What one of them raises is logged.
    """

    service = TextLine(title="Service", description="Its path in the database, such as shop.tasks.")

    database_name = TextLine(title="Database", description="What the database calls itself.")

    service_oid = Bytes(
        title="Object id",
        description="Of the service; None where the process knows its path alone.",
        required=False,
    )

    jobid = Int(title="Id", description="The id of the job.")

    name = TextLine(title="Name", description="What its service calls the job.")

    task = TextLine(title="Task", description="The name of the task.")

    attempt = Int(title="Attempt", description="How often the job was claimed.")

    status = Choice(title="Status", description="That of the job behind it.", values=STATUSES)

    time = Float(title="Time", description="Seconds since the epoch.")


class IJobAdded(IJobEvent):
    """A job was added."""


class IJobStarted(IJobEvent):
    """A worker begins to run a job.  Of jobs that share a commit it is told when that is done."""


class IJobCompleted(IJobEvent):
    """A run has ended well; the status of a schedule tells that it goes on."""

    seconds = Float(title="Seconds", description="Since the job was claimed.")


class IJobAttemptFailed(IJobEvent):
    """An attempt has failed, and the job, or its schedule, goes on."""

    seconds = Float(title="Seconds", description="Since the job was claimed.")

    failure = Field(title="Failure", description="The `lovely.remotetask.job.Failure`.")


class IJobFailed(IJobEvent):
    """A job is an error: its last attempt has failed."""

    seconds = Float(title="Seconds", description="Since the job was claimed.")

    failure = Field(title="Failure", description="The `lovely.remotetask.job.Failure`.")


class IJobCancelled(IJobEvent):
    """A job was cancelled: before it ran, by its task, or behind a run."""


class IJobRescued(IJobEvent):
    """A job was freed whose process has died; if it is an error now, that is told too."""

    failure = Field(title="Failure", description="The `lovely.remotetask.job.Failure`.")


class IStartRemoteTasksEvent(Interface):
    """Remote tasks are to be started."""

    serviceNames = List(
        title="Services to start",
        description="Autostart patterns such as ``site@service``.",
        value_type=TextLine(),
        required=False,
    )


class IReference(Interface):
    """What is stored in an input in the place of a persistent object.

    An adapter of yours, for objects that are not to be inputs themselves, but to be found again
    where the job runs: those that stand wrapped in their containers, or may be moved or gone by
    then.  It is asked for when jobs of an `ITaskService` are added, for each persistent object
    that an input holds; where there is none, or it returns None, the input refers to the object
    itself.

    It is stored with the job, so a plain value will do best; the object that it stands for may not
    be in it.  Content of Zope and Plone has an adapter: `lovely.remotetask.hosts.content`.
    """

    def resolve():
        """Return the object, which the task is given in its input.

        It is called in the job's run, within all that is put around it: as its user, in its site.

        :raises Exception: as if the task had raised it; a `TaskError` is not tried again.

        Transaction: reads only.
        """


class IJobDetail(Interface):
    """What lists and pages tell of a job beside what they tell of all jobs.

    It is looked up as an adapter of the job and of the request (of WebOb), under the name
    ``TASK_detail``, where TASK is the name of the job's task, and then under ``detail``.  The job
    is an `IJob`; of a remote processor it is the job object.
    """

    def __call__():
        """Return a text; it is shown as it is, tags and all.

        Transaction: reads only.
        """
