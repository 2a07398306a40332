# SPDX-License-Identifier: ZPL-2.1
"""``@@remotetasks``, the page of plain Zope that looks after services: in the root and in sites.

From top to bottom; each uses only those below it.

``configure.zcml``  registers it
``pages``           what is shown, and what buttons do
``token``           what tells a form of ours from one of a foreign site
"""
