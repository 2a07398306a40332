# SPDX-License-Identifier: ZPL-2.1
"""What starts the services of an application.

From top to bottom; each uses only those below it.

``autostart``  by patterns in its configuration
"""
