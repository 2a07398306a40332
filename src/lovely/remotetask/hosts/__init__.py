# SPDX-License-Identifier: ZPL-2.1
"""What starts the services of an application, and takes them out.

From top to bottom; each uses only those below it.

``removal``    takes out of a database what needs the package
``autostart``  by patterns in its configuration
"""
