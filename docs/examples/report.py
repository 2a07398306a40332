"""Counts the words of some texts, one job a text, and writes a report when all are counted."""

import transaction
import ZODB

from lovely.remotetask import TaskError, TaskService, task

TEXTS = {
    "Ada": "The Analytical Engine has no pretensions to originate anything",
    "Alan": "We can only see a short distance ahead",
    "Grace": None,  # this one cannot be counted
}


@task("count words")
def count_words(name):
    text = TEXTS[name]
    if text is None:
        raise TaskError("there is no text")
    return len(text.split())


@task("write report", context=True)
def write_report(context, title):
    group = context.group
    lines = [title]
    for (_, status, result), name in zip(group, TEXTS, strict=True):
        lines.append(f"{name}: {result if status == 'completed' else status}")
    lines.append(f"{group.completed} of {group.total} texts were counted")
    context.root["report"] = "\n".join(lines)


db = ZODB.DB(None)  # in memory; take a file or a server for what is to stay
root = db.open().root()
service = root["tasks"] = TaskService()
transaction.commit()
service.startProcessing()

report = service.add_group("count words", TEXTS, then=("write report", "Words"))
transaction.commit()

service.wait(report, timeout_seconds=60)
print(root["report"])
db.close()
