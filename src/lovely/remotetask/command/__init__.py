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
``pausing``      what the verbs that pause and resume share
``jobtable``     how jobs are shown and found
``services``     the services that patterns name, for verbs that look after them
``watching``     what ``--watch`` does
``asking``       questions before something is done for good
``signals``      what ends a command
``zopeconf``     starts Zope without a web server
``database``     opens what a URI names
``sql``          databases that RelStorage keeps
``output``       what people and programs see
"""
