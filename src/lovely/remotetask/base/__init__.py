# SPDX-License-Identifier: ZPL-2.1
"""What knows nothing of jobs: about objects in ZODB, threads and processes.

From top to bottom; each uses only those below it.

``shelf``        containers that two transactions may write at once
``ownership``    sees to it that what is written is stored
``leftovers``    takes away what refused commits leave behind
``layers``       storages that wrap others
``storable``     values that survive being stored and loaded
``reference``    what stands in inputs for persistent objects that are found again
``schemas``      values against schemas
``lookup``       utilities by interface and name
``site``         sites and paths, and which services live in this process
``guard``        lets nobody end a transaction that is in use, or write without one
``isolation``    gives a thread back as it was
``loglines``     what is logged in a thread while a job runs there
``processpool``  functions that run in other processes
``coroutine``    coroutines, run to their ends
``function``     whether functions can be called as tasks are, and elsewhere
``forking``      ends forked children that come out of somebody's code
"""
