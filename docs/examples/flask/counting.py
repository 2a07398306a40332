"""A page that counts the words of a text in the background, and shows how far it is."""

import time

import transaction
import ZODB
from flask import Flask, g, redirect, render_template_string, request, url_for

from lovely.remotetask import TaskService
from lovely.remotetask.errors import JobNotFound
from lovely.remotetask.hosts.autostart import start_services
from lovely.remotetask.hosts.servers import forks, starts_here
from lovely.remotetask.task import task

FORM = """<!doctype html><html lang="en"><title>Count words</title><h1>Count words</h1>
<form method="post" action="/jobs">
<label>Text <textarea name="text" rows="4">to be or not to be</textarea></label>
<button>Count</button></form></html>"""

JOB = """<!doctype html><html lang="en"><title>Count words</title>
{% if not job.is_final %}<meta http-equiv="refresh" content="1">{% endif %}
<h1>Count words</h1>
<p role="status">{{ job.status }}{% if progress %},
word {{ progress.done }} of {{ progress.total }}{% endif %}</p>
{% if job.is_final %}<p>{% if job.error %}{{ job.error }}{% else %}
{% for word, number in job.output|dictsort %}{{ word }}: {{ number }} {% endfor %}{% endif %}</p>
<p><a href="/">Again</a></p>{% endif %}</html>"""


@task("counting.count", context=True)
def count(context, text):
    """Count how often each word is there, at leisure."""
    counts = {}
    words = text.lower().split()
    for done, word in enumerate(words, 1):
        counts[word] = counts.get(word, 0) + 1
        context.progress(done, len(words))
        time.sleep(0.2)
    context.root["texts"] = context.root.get("texts", 0) + 1
    return counts


def make_app(path="Counting.fs"):
    """Return the application, on a database with a service; in a server it works on the jobs."""
    app = Flask(__name__)
    db = ZODB.DB(path)
    with db.transaction("make the service") as connection:
        if "tasks" not in connection.root():
            connection.root()["tasks"] = TaskService()
    if starts_here() and not forks():
        start_services(db, ["@tasks"])

    @app.before_request
    def begin():
        """Give each request a transaction, and the service in it."""
        g.manager = transaction.TransactionManager()
        g.connection = db.open(g.manager)
        g.tasks = g.connection.root()["tasks"]

    @app.after_request
    def commit(response):
        """Keep what the request has done, unless it has failed: jobs are there from now on."""
        if response.status_code < 400:
            g.manager.commit()
        return response

    @app.teardown_request
    def end(error):
        """Drop what was not kept."""
        if "connection" in g:
            g.manager.abort()
            g.connection.close()

    @app.errorhandler(JobNotFound)
    def not_found(error):
        return str(error), 404

    @app.get("/")
    def home():
        return FORM

    @app.post("/jobs")
    def add():
        jobid = g.tasks.add(count, request.form.get("text", ""))
        return redirect(url_for("show", jobid=jobid), 303)

    @app.get("/jobs/<int:jobid>")
    def show(jobid):
        job = g.tasks.job(jobid)
        return render_template_string(JOB, job=job, progress=g.tasks.getProgress(jobid))

    return app
