# SPDX-License-Identifier: ZPL-2.1
"""What applications need to test their tasks and what they add them to.

From top to bottom; each uses only those below it.

``fixtures``  a plugin of pytest, which nothing else here needs
``eagerness``  jobs that run when they are added
``running``   runs what is due, and raises what fails
``checking``  says which jobs were added
``moving``    a clock that a test moves
``stub``      a service in memory, and its tasks
"""

from lovely.remotetask.testing.checking import assert_added
from lovely.remotetask.testing.eagerness import eager
from lovely.remotetask.testing.moving import Clock, moving_clock
from lovely.remotetask.testing.running import run_all
from lovely.remotetask.testing.stub import ExceptionTask, ITaskStub, TaskServiceStub

__all__ = [
    "Clock",
    "ExceptionTask",
    "ITaskStub",
    "TaskServiceStub",
    "assert_added",
    "eager",
    "moving_clock",
    "run_all",
]
