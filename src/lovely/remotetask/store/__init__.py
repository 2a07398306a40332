# SPDX-License-Identifier: ZPL-2.1
"""What lies in the database, and how it is found.  Nothing here commits.

From top to bottom; each uses only those below it.

``check``        compares jobs and indexes, and mends
``lost``         records that are missing
``awaiting``     finds jobs that wait in vain for others
``problem``      what a check finds
``listing``      pages of jobs, in the order of a time
``count``        how many jobs there are
``schedulekeys``  which job is the schedule with a key
``expiry``       which jobs expire, and when
``queue``        all places where jobs wait or rest
``reason``       why a job that could run waits
``gates``        locks, and limits of tasks
``level``        where the jobs of one priority wait
``lots``         where jobs are set aside
``keys``         which job has a unique key
``names``        tables of names
``ready``        the ready queue
``links``        which jobs wait for which others
``group``        groups of jobs, and which of them have ended
``pauses``       which tasks are paused
``memory``       what a worker remembers of the ready queue
``joblog``       what the runs of a job have logged
``words``        what jobs that wait for others could not be told
``timeindex``    where jobs wait for a time
``ended``        the index of the jobs that have ended
``index``        what both indexes by time are made of
``notes``        what is noted about running jobs
``quarantine``   jobs whose records cannot be read or written here
``tree``         all jobs by id
``worker``       which process holds which jobs
``oldjobs``      jobs that 0.5 has written, as jobs of today
``predecessor``  services that 0.5 has written
"""
