# SPDX-License-Identifier: ZPL-2.1
"""The second door: jobs that are objects, made by factories, with a scheduler apart.

From top to bottom; each uses only those below it.

``testing``     jobs and a processor to test with
``mongo``       the processor on MongoDB
``processor``   the processor in ZODB
``items``       its factories, jobs and scheduler
``base``        what processors of all stores do
``worker``      what their threads do
``scheduler``   scheduler items, and what schedulers of all stores do
``job``         jobs and their factories
``record``      what the engine knows of a job
``query``       which jobs a worker takes
``values``      attributes that have to make sense
``calltime``    when scheduler items are due
``exceptions``  what jobs raise
``interfaces``  the contracts
"""
