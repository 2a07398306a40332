# SPDX-License-Identifier: ZPL-2.1
"""The command ``remotetask``.

From top to bottom; each uses only those below it.

``main``         the entry point and the parser, which assembles the verbs
``run``          ``remotetask run``
``check``        ``remotetask check``
``init``         ``remotetask init``
``clean``        ``remotetask clean``
``add``          ``remotetask add``
``demo``         ``remotetask demo``, and its tasks
``status``       ``remotetask status``
``jobs``         ``remotetask jobs``
``job``          ``remotetask job``
``wait``         ``remotetask wait``
``retry``        ``remotetask retry``
``cancel``       ``remotetask cancel``
``run_now``      ``remotetask run-now``
``undo``         ``remotetask undo``
``pause``        ``remotetask pause``
``resume``       ``remotetask resume``
``schedules``    ``remotetask schedules``
``workers``      ``remotetask workers``
``web``          ``remotetask web``
``credential``   ``remotetask credential``
``upgrade``      ``remotetask upgrade``
``uninstall``    ``remotetask uninstall``
``completion``   ``remotetask completion``
``pastedeploy``  the web application for PasteDeploy
``serving``      what the verbs that serve the web application share
``supervise``    keeps several processes at work
``work``         one process that works on services
``process``      one process of a supervisor, and its place
``parent``       the supervisor, as its processes see it
``channel``      what these tell each other
``health``       whether a worker is well, by file, HTTP and systemd
``systemd``      tells systemd
``drain``        whether there is nothing more to do
``probe``        whether the storage answers
``pausing``      what the verbs that pause and resume share
``jobtable``     how jobs are shown and found
``served``       the databases that one process serves
``services``     the services that patterns name, for verbs that look after them
``watching``     what ``--watch`` does
``asking``       questions before something is done for good
``signals``      what ends a command
``zopeconf``     starts Zope without a web server
``database``     opens what a URI names
``zeo``          ZEO servers, and TLS
``sql``          databases that RelStorage keeps
``output``       what people and programs see
``logformat``    lines of a log that programs read
"""
