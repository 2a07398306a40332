"""A page that counts the words of a text in the background, as the user who asks for it."""

import time
from html import escape

from zope.component import getUtility
from zope.publisher.browser import BrowserPage
from zope.security.management import getInteraction

from lovely.remotetask import TaskService, task
from lovely.remotetask.errors import JobNotFound
from lovely.remotetask.interfaces import ITaskService

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">{head}
<title>Count words</title><h1>Count words</h1>{body}</html>"""

FORM = """<form method="post" action="count.html">
<label>Text <textarea name="text" rows="4">to be or not to be</textarea></label>
<button>Count</button></form>"""


@task("counting.count", context=True)
def count(context, text):
    """Count how often each word is there, at leisure."""
    words = text.lower().split()
    for done, word in enumerate(words, 1):
        context.check_cancelled()
        context.progress(done, len(words), word)
        time.sleep(0.2)
    [participation] = getInteraction().participations
    return {"for": participation.principal.id, "words": {word: words.count(word) for word in words}}


class Page(BrowserPage):
    """A page of this application."""

    def show(self, body, head=""):
        self.request.response.setHeader("Content-Type", "text/html; charset=utf-8")
        return PAGE.format(head=head, body=body)


class HomeView(Page):
    """Where everybody begins."""

    def __call__(self):
        return self.show('<p><a href="count.html">Count</a>, <a href="jobs">all jobs</a></p>')


class CountView(Page):
    """The form; and with ``?job=``, how far that job is."""

    def __call__(self):
        service = getUtility(ITaskService, name="tasks")
        if self.request.method == "POST":
            jobid = service.add("counting.count", self.request.form["text"])
            self.request.response.redirect(f"count.html?job={jobid}", status=303)
            return ""
        if "job" not in self.request.form:
            return self.show(FORM)
        try:
            job = service.job(int(self.request.form["job"]))
        except (ValueError, JobNotFound):
            self.request.response.setStatus(404)
            return self.show("<p>There is no such job.</p>")
        if not job.is_final:
            progress = service.getProgress(job.id)
            how_far = f", word {progress.done} of {progress.total}" if progress else ""
            reload = '<meta http-equiv="refresh" content="1">'
            return self.show(f"<p role=status>{job.status}{how_far}</p>", reload)
        if job.error:
            return self.show(f"<p role=status>{job.status}</p><p>{escape(job.error)}</p>")
        counts = ", ".join(f"{word}: {n}" for word, n in sorted(job.output["words"].items()))
        asked = f"for {job.output['for']}"
        return self.show(f"<p role=status>{job.status} {asked}</p><p>{escape(counts)}</p>")


class LogIn(Page):
    """Asks who is there."""

    def __call__(self):
        self.request.unauthorized('Basic realm="Count words"')
        return self.show("<p>Please log in.</p>")


def make_service(event):
    """Make the service in the root folder, once; it starts by itself."""
    with event.database.transaction() as connection:
        registry = connection.root()["Application"].getSiteManager()
        if registry.queryUtility(ITaskService, name="tasks") is None:
            service = registry["default"]["tasks"] = TaskService()
            registry.registerUtility(service, ITaskService, name="tasks")
