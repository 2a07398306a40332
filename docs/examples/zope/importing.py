"""Make a document of each line of a text, in the background, as the user who asks for it."""

import time

from AccessControl import getSecurityManager
from OFS.Image import manage_addFile
from Products.Five.browser import BrowserView
from Products.Five.browser.pagetemplatefile import ViewPageTemplateFile
from zExceptions import NotFound
from zope.component import getUtility

from lovely.remotetask.errors import JobNotFound, TaskError
from lovely.remotetask.interfaces import ITaskService
from lovely.remotetask.task import task

ADD = "Add Documents, Images, and Files"


@task("importing.import_lines", context=True)
def import_lines(context, order):
    """Make the documents; they belong to the user of the job."""
    folder = order["folder"]
    if not getSecurityManager().checkPermission(ADD, folder):
        raise TaskError("you may not add documents here")
    lines = order["text"].splitlines()
    for number, line in enumerate(lines, 1):
        context.check_cancelled()
        name = f"line-{context.job.id}-{number}"
        manage_addFile(folder, name, line.encode(), title=line, content_type="text/plain")
        context.progress(number, len(lines), line)
        time.sleep(0.2)  # at leisure, so that there is something to see
    return {"folder": folder.absolute_url(), "documents": len(lines)}


class ImportView(BrowserView):
    """A form; and with ``?job=``, how far that job is."""

    page = ViewPageTemplateFile("importing.pt")
    job = progress = None

    def __call__(self):
        """Show the form or a job, or add a job in the transaction of this request."""
        service = getUtility(ITaskService, name="tasks")
        self.url = f"{self.context.absolute_url()}/@@import"
        if self.request.method == "POST":
            order = {"folder": self.context, "text": self.request.form.get("text", "")}
            jobid = service.add(import_lines, order)
            self.request.response.redirect(f"{self.url}?job={jobid}", status=303)
            return ""
        if "job" in self.request.form:
            try:
                self.job = service.job(int(self.request.form["job"]))
            except (ValueError, JobNotFound) as error:
                raise NotFound("there is no such job") from error
            self.progress = service.getProgress(self.job.id)
        return self.page()
