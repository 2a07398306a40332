"""A Pyramid application that has the jobs of its database at /jobs."""

import ZODB
from pyramid.authorization import ACLHelper, Allow, Everyone
from pyramid.config import Configurator
from pyramid.wsgi import wsgiapp2

from lovely.remotetask.web import make_app
from lovely.remotetask.web.authorizers import PyramidPolicy


class Policy:
    """Your own security policy: this one believes a header, which yours must not."""

    acl = (
        (Allow, "alice", ["remotetask.view", "remotetask.add", "remotetask.manage"]),
        (Allow, "bob", ["remotetask.view"]),
    )

    def identity(self, request):
        return request.headers.get("X-User")

    def authenticated_userid(self, request):
        return self.identity(request)

    def permits(self, request, context, permission):
        context.__acl__ = self.acl
        return ACLHelper().permits(context, [Everyone, self.identity(request)], permission)

    def remember(self, request, userid, **options):
        return []

    def forget(self, request, **options):
        return []


def main(db: ZODB.DB):
    jobs = make_app(db, services="@tasks", authorize=PyramidPolicy())
    with Configurator() as config:
        config.set_security_policy(Policy())
        config.add_route("jobs", "/jobs*subpath")
        config.add_view(wsgiapp2(jobs), route_name="jobs")
        return config.make_wsgi_app()
