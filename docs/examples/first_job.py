"""The first job: it is added, a thread runs it, and its result is printed."""

import transaction
import ZODB

from lovely.remotetask import TaskService, task


@task("greet")
def greet(name):
    return f"Hello, {name}!"


db = ZODB.DB("Data.fs")
root = db.open().root()
if "tasks" not in root:
    root["tasks"] = TaskService()
    transaction.commit()
service = root["tasks"]
service.startProcessing()

jobid = service.add("greet", "Ada")
transaction.commit()
print(service.wait(jobid))
print(service.wait_result(jobid))

db.close()
