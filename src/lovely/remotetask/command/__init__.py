# SPDX-License-Identifier: ZPL-2.1
"""The command ``remotetask``.

From top to bottom; each uses only those below it.

``main``      the verbs, and ``run``
``upkeep``    verbs that look after a database
``demo``      ``remotetask demo``
``database``  opens what a URI names
``output``    what people see
"""
