"""The buttons: they add a job, and leave the work to it."""

from plone import api
from plone.app.content.browser.contents import ContentsBaseAction
from plone.app.content.interfaces import IStructureAction
from plone.protect import authenticator, postonly
from Products.Five.browser import BrowserView
from zope.component import getUtility
from zope.interface import implementer

from lovely.remotetask.interfaces import ITaskService
from reindexing.tasks import MODIFY, reindex_below


def add_job(objects, note):
    service = getUtility(ITaskService, name="tasks")
    return service.add(reindex_below, objects, note=note)


class ReindexBelow(BrowserView):
    """Asks, and adds the job when the form is posted: a GET must write nothing."""

    def __call__(self):
        if self.request.method != "POST":
            return self.index()
        postonly.check(self.request)
        authenticator.check(self.request)
        title = self.context.Title()
        add_job([self.context], f"Re-index {title}")
        api.portal.show_message(f"{title} is re-indexed in the background.", self.request)
        return self.request.response.redirect(f"{self.context.absolute_url()}/view")


@implementer(IStructureAction)
class ReindexAction:
    """The button above the contents of a folder."""

    order = 20

    def __init__(self, context, request):
        self.context = context

    def get_options(self):
        return {
            "tooltip": "Re-index in the background",
            "id": "reindex",
            "icon": "arrow-repeat",
            "url": f"{self.context.absolute_url()}/@@fc-reindex",
        }


class ReindexSelected(ContentsBaseAction):
    """Adds one job for all that is selected."""

    success_msg = "What is selected is re-indexed in the background."
    failure_msg = "Some of it cannot be re-indexed"
    required_obj_permission = MODIFY

    def __call__(self):
        self.objects = []
        return super().__call__()

    def action(self, obj):
        self.objects.append(obj)

    def finish(self):
        if self.objects:
            add_job(self.objects, f"Re-index {len(self.objects)} selected")
