# SPDX-License-Identifier: ZPL-2.1
"""For programs, by JSON.

From top to bottom; each uses only those below it.

``face``       all calls
``document``   their description in the form of OpenAPI
``services``   services, workers, health and counts
``scheduling``  schedules
``jobs``       jobs
``schemas``    the forms of what is sent and answered
``call``       what a call is
"""
