# SPDX-License-Identifier: ZPL-2.1
"""Services on other machines.

From top to bottom; each uses only those below it.

``service``  a service that another machine serves
``wire``     how its API is called, and read
"""

from lovely.remotetask.client.service import RemoteService

__all__ = ["RemoteService"]
