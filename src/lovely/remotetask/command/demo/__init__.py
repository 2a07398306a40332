# SPDX-License-Identifier: ZPL-2.1
"""``remotetask demo``: jobs that index text files into a catalog in their own database.

Each file is a job.  What the job writes into the catalog, its result and its status are one
commit, so that the catalog and the completed jobs agree whenever one looks, whatever was killed
when.  The proof looks.  Importing this package registers its tasks, for ``remotetask run``.

From top to bottom; each uses only those below it.

``show``      the verb: its arguments, and what people and programs see
``work``      one run: what is to do, and what has come of it
``proof``     whether jobs and catalog agree
``door``      the two doors, as a run uses them
``tasks``     the tasks of the first one
``jobs``      the job objects of the second one
``indexing``  what the jobs of both do
``files``     finds text files, and counts their words
``catalog``   the inverted index in the database
"""

from lovely.remotetask.command.demo.catalog import Catalog
from lovely.remotetask.command.demo.indexing import FREQUENT_WORDS, INDEX, REPORT
from lovely.remotetask.command.demo.show import add_arguments, run
from lovely.remotetask.command.demo.tasks import register

__all__ = ["FREQUENT_WORDS", "INDEX", "REPORT", "Catalog", "add_arguments", "register", "run"]
