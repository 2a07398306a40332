# SPDX-License-Identifier: ZPL-2.1
"""A job's way from its claim to its end, in transactions.  Only here is committed.

From top to bottom; each uses only those below it.

``maintenance``   what a worker does beside its jobs
``execution``     runs jobs in threads
``claims``        what one worker has in hand
``inline``        runs jobs in the caller's transaction
``progress``      cancel requests and progress of a running job
``step``          what each step of a job's way writes
``transactions``  repeats transactions, and waits for the storage
``session``       a connection and its transactions
``later``         starts services when they are committed
``registry``      what runs in this process
``wakeup``        what the storage tells by itself
"""
