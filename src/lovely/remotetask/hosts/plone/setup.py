# SPDX-License-Identifier: ZPL-2.1
"""What the profiles do that their XML cannot say."""

from __future__ import annotations

from typing import Any

from Acquisition import aq_parent
from plone.base.interfaces import INonInstallable
from zope.interface import implementer

from lovely.remotetask.hosts import zope
from lovely.remotetask.hosts.plone.jobs import SERVICE


def installed(tool: Any) -> None:
    """Make the service of the site.

    Transaction: writes, but does not commit.
    """
    zope.install(aq_parent(tool), SERVICE)


def uninstalled(tool: Any) -> None:
    """Remove the service of the site, with the jobs in it.

    Transaction: writes, but does not commit.
    """
    zope.uninstall(aq_parent(tool), SERVICE)


@implementer(INonInstallable)
class HiddenProfiles:
    """What is not shown where a site or an add-on is installed."""

    def getNonInstallableProfiles(self) -> list[str]:
        """Return the profiles that are not offered."""
        return ["lovely.remotetask.hosts.plone:uninstall"]

    def getNonInstallableProducts(self) -> list[str]:
        """Return the packages that are not offered."""
        return []
