# SPDX-License-Identifier: ZPL-2.1
"""What starts the services of an application.

From top to bottom; each uses only those below it.

``pyramid``    applications of Pyramid
``servers``    whether this process is a server
``autostart``  by patterns in its configuration
"""
