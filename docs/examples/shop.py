"""A shop that sells by jobs, and orders by a schedule."""

import time

import transaction
import ZODB
from persistent.mapping import PersistentMapping
from stock import Restock, Sell

from lovely.remotetask.remote.processor import RemoteProcessor
from lovely.remotetask.remote.scheduler import Cron, Delay


def open_shop(root):
    """Put stock and processor into a new database."""
    root["stock"] = PersistentMapping({"apples": 3, "pears": 20})
    processor = root["processor"] = RemoteProcessor()
    processor.__name__ = "shop"
    processor.addJobFactory("sell", Sell({"retryDelay": 0.5, "maxRetries": 20}))
    processor.addJobFactory("restock", Restock({"input": {"least": 10}}))


def wait_for(processor, jobid):
    """Look at a job until it has ended, each time in a new transaction."""
    while processor.getJobStatus(jobid) in ("queued", "processing"):
        time.sleep(0.05)
        transaction.begin()
    return processor.getJobStatus(jobid)


db = ZODB.DB("Shop.fs")
root = db.open().root()
if "processor" not in root:
    open_shop(root)
    transaction.commit()
processor = root["processor"]
processor.startProcessor()
processor.startScheduler()

# A job, and what has become of it.
pears = processor.addJob("sell", {"what": "pears", "count": 2})
transaction.commit()
print("pears:", wait_for(processor, pears), processor.getJobResult(pears))

# One that nobody can run: it is not repeated.
figs = processor.addJob("sell", {"what": "figs", "count": 1})
transaction.commit()
print("figs:", wait_for(processor, figs), processor.getJobErrors(figs))

# One that cannot be run yet: it is repeated, until an order has come.
apples = processor.addJob("sell", {"what": "apples", "count": 8})
order = Delay({"jobName": "restock", "delay": 2, "active": True})
processor.addScheduler(order)
transaction.commit()
print("apples:", wait_for(processor, apples), processor.getJobResult(apples))
job = processor._jobs[apples]
print("runs:", job.retryCounter)
print("first error:", job.errors[0])

# At certain times, in UTC: on weekdays at six and at noon.
plan = Cron({"jobName": "restock", "minute": [0], "hour": [6, 12], "dayOfWeek": [0, 1, 2, 3, 4]})
plan.active = True
processor.addScheduler(plan)
processor._scheduler.remove(order)
transaction.commit()
print("next order:", plan.nextCallTime)

processor.stopScheduler()
processor.stopProcessor()
print("removed:", processor.removeJobs(["completed", "error"]))
transaction.commit()
print("stock:", dict(root["stock"]))
db.close()
