# SPDX-License-Identifier: ZPL-2.1
"""The remote processor on MongoDB, for which the extra ``mongo`` is needed.

From top to bottom; each uses only those below it.

``processor``   the processor
``engine``      what drives its workers: claims, news, upkeep
``session``     a thread's place at the database, and its transactions
``claiming``    which job is taken next, and by whom
``items``       its factories, jobs and scheduler
``connection``  what one thread has loaded, and what its transaction writes
``entry``       one object and its document
``documents``   how objects stand in documents
``database``    the collections, and their server
"""

try:
    import pymongo  # noqa: F401
except ImportError as error:
    raise ImportError(
        "lovely.remotetask.remote.mongo needs pymongo: pip install 'lovely.remotetask[mongo]'"
    ) from error

from lovely.remotetask.remote.mongo.processor import MongoRemoteProcessor

__all__ = ["MongoRemoteProcessor"]
