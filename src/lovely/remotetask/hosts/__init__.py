# SPDX-License-Identifier: ZPL-2.1
"""What starts the services of an application, takes them out, and tells its tools of jobs.

From top to bottom; each uses only those below it.

``plone``        the add-on for Plone
``zmi``          a page of plain Zope that looks after services
``jobs``         what such pages ask of jobs
``zope``         Zope and Plone: a request, a site and a user for each job
``content``      content of Zope and Plone as input of jobs
``interaction``  a principal for each job, where zope.security asks for one
``users``        as whom a job runs
``zcml``         what ZCML says of tasks
``pyramid``      applications of Pyramid
``notebook``     a bar for a job that a notebook waits for
``dropped``      warns of jobs that a request has added in vain
``servers``      whether this process is a server
``otel``         spans of OpenTelemetry
``prometheus``   metrics for Prometheus
``removal``      takes out of a database what needs the package
``autostart``    by patterns in its configuration
``lookout``      services that are made after the start
"""
