# SPDX-License-Identifier: ZPL-2.1
"""What can be set in a site: records of its registry."""

from __future__ import annotations

from typing import Any

from plone.registry.interfaces import IRegistry
from zope.component import queryUtility
from zope.interface import Interface
from zope.schema import TextLine, Tuple

#: The names of the records begin so.
PREFIX = "lovely.remotetask"


class IRemoteTaskSettings(Interface):
    """The settings of remote tasks in a site."""

    failure_mail = TextLine(
        title="E-mail address for failures",
        description="Every five minutes the jobs that have failed are told to this address. "
        "Leave it empty to send nothing.",
        required=False,
    )

    offered_tasks = Tuple(
        title="Tasks that may be added over HTTP",
        description="Names of tasks, one a line. Who has the permission “Add remote tasks” may "
        "add them by @remotetasks with any input; who may manage remote tasks may add every task.",
        value_type=TextLine(),
        required=False,
        default=(),
        missing_value=(),
    )


def setting(name: str) -> Any:
    """Return a setting of the current site; None where the add-on is not installed.

    Transaction: reads only.
    """
    registry = queryUtility(IRegistry)
    return None if registry is None else registry.get(f"{PREFIX}.{name}")
