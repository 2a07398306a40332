"""The tasks of the tutorial, and what adds them: a shelf of texts, and an index of their words."""

import time

from lovely.remotetask import TaskError, task


@task("index", context=True)
def index(context, name):
    root = context.root
    if name not in root["texts"]:
        raise TaskError(f"There is no text called {name}.")
    words = root["texts"][name].lower().split()
    for word in words:
        if name not in root["words"].get(word, ()):
            root["words"][word] = root["words"].get(word, ()) + (name,)
    return len(words)


@task("index all", context=True)
def index_all(context, input):
    names = list(context.root["texts"])
    return [context.service.add("index", name) for name in names]


@task("proofread", context=True)
def proofread(context, pages):
    for page in range(pages):
        context.check_cancelled()
        context.progress(page, pages, f"page {page + 1}")
        time.sleep(0.02)
    return "no mistakes"


def put(root, name, text):
    """Put a text on the shelf, and have it indexed."""
    root["texts"][name] = text
    return root["tasks"].add("index", name)
