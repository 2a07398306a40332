# SPDX-License-Identifier: ZPL-2.1
"""What starts the services of an application.

From top to bottom; each uses only those below it.

``plone``      the add-on for Plone
``content``    content of Zope and Plone as input of jobs
``zope``       Zope and Plone: a request, a site and a user for each job
``zcml``       what ZCML says of tasks
``pyramid``    applications of Pyramid
``dropped``    warns of jobs that a request has added in vain
``servers``    whether this process is a server
``autostart``  by patterns in its configuration
"""
