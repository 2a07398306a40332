# SPDX-License-Identifier: ZPL-2.1
"""The command ``remotetask``.

From top to bottom; each uses only those below it.

``main``      the entry point and the parser, which assembles the verbs
``run``       ``remotetask run``
``check``     ``remotetask check``
``clean``     ``remotetask clean``
``add``       ``remotetask add``
``demo``      ``remotetask demo``, and its tasks
``status``    ``remotetask status``
``jobs``      ``remotetask jobs``
``job``       ``remotetask job``
``wait``      ``remotetask wait``
``retry``     ``remotetask retry``
``cancel``    ``remotetask cancel``
``run_now``   ``remotetask run-now``
``pause``     ``remotetask pause``
``resume``    ``remotetask resume``
``workers``   ``remotetask workers``
``web``       ``remotetask web``
``credential``  ``remotetask credential``
``pastedeploy``  the web application for PasteDeploy
``serving``   what the verbs that serve the web application share
``pausing``   what the verbs that pause and resume share
``jobtable``  how jobs are shown and found
``services``  the services that patterns name, for verbs that look after them
``signals``   what ends a command
``database``  opens what a URI names
``output``    what people and programs see
"""
