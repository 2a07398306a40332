# SPDX-License-Identifier: ZPL-2.1
"""The add-on for Plone: a profile that makes a service in a site, and pages to look after it.

From top to bottom; each uses only those below it.

``configure.zcml``  registers all of it, where Plone is
``setup``         what the profiles do that XML cannot say
``controlpanel``  the pages of the control panel
``endpoints``     ``@remotetasks`` of plone.restapi
``own``           the viewlet with a user's own running jobs
``failures``      tells of failed jobs by e-mail
``settings``      what can be set
``jobs``          the site's service, and its jobs as plain data
"""
