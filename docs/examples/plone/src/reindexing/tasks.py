"""The task: it runs in the site, as the user who has added the job."""

from plone import api

from lovely.remotetask import TaskError, task

MODIFY = "Modify portal content"


@task("reindexing.below", context=True)
def reindex_below(context, places):
    """Index some objects anew, and all that is below them; return how many that are."""
    for place in places:
        if not api.user.has_permission(MODIFY, obj=place):
            raise TaskError(f"you may not modify {place.Title()}")
    paths = ["/".join(place.getPhysicalPath()) for place in places]
    found = api.portal.get_tool("portal_catalog").unrestrictedSearchResults(path=paths)
    for number, brain in enumerate(found, 1):
        context.check_cancelled()
        context.progress(number, len(found), brain.getPath())
        brain._unrestrictedGetObject().indexObject()
    context.log.info("%s objects are indexed", len(found))
    return len(found)
