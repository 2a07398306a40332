"""The task: it runs in the site, as the user who has added the job."""

from plone import api

from lovely.remotetask import task

MODIFY = "Modify portal content"


@task("reindexing.below", context=True)
def reindex_below(context, places):
    """Index some objects anew, and all that is below them; return how many that are.

    places: what lovely.remotetask.hosts.content.reference has made of the objects
    """
    paths = ["/".join(place.resolve(MODIFY).getPhysicalPath()) for place in places]
    found = api.portal.get_tool("portal_catalog").unrestrictedSearchResults(path=paths)
    for number, brain in enumerate(found, 1):
        context.check_cancelled()
        context.progress(number, len(found), brain.getPath())
        brain._unrestrictedGetObject().indexObject()
    context.log.info("%s objects are indexed", len(found))
    return len(found)
