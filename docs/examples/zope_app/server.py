"""Serves the application, and at /jobs the pages of its jobs, for those who have a password."""

import zope.app.wsgi
from waitress import serve
from zope.principalregistry.principalregistry import principalRegistry

from lovely.remotetask.web import make_app
from lovely.remotetask.web.authorizers import basic_credentials

MANAGERS = {"shop.jane"}


def may(request, permission):
    """Say whether a manager asks; *permission* is ``view``, ``add`` or ``manage``."""
    login, password = basic_credentials(request) or ("", "")
    try:
        principal = principalRegistry.getPrincipalByLogin(login)
    except KeyError:
        return False
    return principal.id in MANAGERS and principal.validate(password)


may.challenge = 'Basic realm="Count words"'


def main(conf="zope.conf"):
    """Return the WSGI application."""
    db = zope.app.wsgi.config(conf)
    application = zope.app.wsgi.WSGIPublisherApplication(db)
    jobs = make_app(db, authorize=may)

    def both(environ, start_response):
        path = environ.get("PATH_INFO", "")
        if path == "/jobs" or path.startswith("/jobs/"):
            environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + "/jobs"
            environ["PATH_INFO"] = path[len("/jobs") :]
            return jobs(environ, start_response)
        return application(environ, start_response)

    return both


if __name__ == "__main__":
    serve(main(), listen="127.0.0.1:8080")
