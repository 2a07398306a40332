"""A page that counts the words of a text in the background, and shows how far it is."""

import time
from html import escape

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPSeeOther
from pyramid.response import Response
from pyramid.view import view_config

from lovely.remotetask.task import task

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">{head}
<title>Count words</title><h1>Count words</h1>{body}</html>"""

FORM = """<form method="post" action="/jobs">
<label>Text <textarea name="text" rows="4">to be or not to be</textarea></label>
<button>Count</button></form>"""


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


@view_config(route_name="home")
def home(request):
    """Show the form."""
    return Response(PAGE.format(head="", body=FORM))


@view_config(route_name="jobs", request_method="POST")
def add(request):
    """Add a job, in the transaction of this request."""
    jobid = request.tasks.add(count, request.POST.get("text", ""))
    return HTTPSeeOther(request.route_path("job", id=jobid))


@view_config(route_name="job")
def show(request):
    """Show a job; an id that is unknown is answered by 404."""
    job = request.tasks.job(int(request.matchdict["id"]))
    if not job.is_final:
        progress = request.tasks.getProgress(job.id)
        how_far = f", word {progress.done} of {progress.total}" if progress else ""
        body = f"<p role=status>{job.status}{how_far}</p>"
        return Response(PAGE.format(head='<meta http-equiv="refresh" content="1">', body=body))
    result = job.error or ", ".join(f"{word}: {n}" for word, n in sorted(job.output.items()))
    body = f"<p role=status>{job.status}</p><p>{escape(result)}</p><p><a href='/'>Again</a></p>"
    return Response(PAGE.format(head="", body=body))


def main(global_config, **settings):
    """Return the application."""
    config = Configurator(settings=settings)
    config.include("pyramid_tm")
    config.include("pyramid_zodbconn")
    config.include("lovely.remotetask.hosts.pyramid")
    config.add_route("home", "/")
    config.add_route("jobs", "/jobs")
    config.add_route("job", r"/jobs/{id:\d+}")
    config.scan()  # finds the views, and imports the modules with the tasks
    return config.make_wsgi_app()
