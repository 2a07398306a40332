# SPDX-License-Identifier: ZPL-2.1
"""A job's way from its claim to its end, in transactions.  Only here is committed.

From top to bottom; each uses only those below it.

``loop``          claims jobs and has them run
``crew``          who runs what a loop has claimed
``ledger``        which thread answers for which claims
``maintenance``   the thread beside a loop: signs of life, timeouts, upkeep
``zodb``          the engine of services in ZODB
``upkeep``        what is done for all workers, in steps
``execution``     runs what was claimed
``finishing``     writes the ends of runs, several in one commit
``settling``      writes what becomes of failed runs, and asks before
``aside``         puts jobs aside for which a storage has no room
``claims``        what one worker has in hand
``rivals``        what a worker knows of those beside it
``hand``          what a worker of any store has in hand
``news``          whether there may be work
``upgrade``       brings a service of 0.5 to today's records
``inline``        runs jobs in the caller's transaction
``schedules``     schedules by their keys: made, changed, removed and listed
``service``       what every service has: its parts and its settings
``undoing``       undoes what a job has done
``grouping``      takes groups of jobs
``waiting``       waits for jobs to end
``control``       finds, starts, repeats, reschedules, cancels and pauses jobs
``finding``       what is asked of the lists of jobs
``progress``      cancel requests and progress of a running job
``joblogs``       notes what running jobs log
``rescue``        frees what dead workers held
``claim``         what a claim writes
``fence``         whether a worker still holds what it has claimed
``filing``        files the jobs whose runs have ended
``retention``     how long jobs that have ended are kept, and their end
``outcome``       what becomes of a run
``following``     what follows when a job has ended
``adding``        takes new jobs
``options``       what can be given for a new job
``identity``      who a worker is, and whether others are still alive
``transactions``  repeats transactions, and waits for the storage
``notifications`` what PostgreSQL tells by itself, where it has the trigger
``trigger``       the trigger in PostgreSQL
``session``       a connection and its transactions
``telling``       tells what has happened to jobs, after the commit
``later``         starts services, at once or when they are committed
``registry``      what runs in this process
``allowance``     how much a process may do before another one takes its place
``wakeup``        what the storage tells by itself
``protocol``      what loops know of an engine, of any store
"""
