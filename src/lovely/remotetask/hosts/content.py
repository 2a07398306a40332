# SPDX-License-Identifier: ZPL-2.1
"""Content of Zope and Plone as input of jobs, and tasks that many want: by one call each.

An object that is given to ``add``, alone or within other input, is not stored there: it stands
wrapped in its containers, and may be moved, or gone, by the time the job runs.  What is stored is
where it was, and its UID if it has one.  The task is given the object, as traversal gives it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

from AccessControl.SecurityManagement import getSecurityManager
from Acquisition import aq_base, aq_inner, aq_parent
from zope.component.hooks import getSite
from zope.globalrequest import getRequest
from zope.interface import implementer

from lovely.remotetask.errors import InvalidArgument, InvalidInput, TaskError
from lovely.remotetask.interfaces import IReference
from lovely.remotetask.task import task

#: The permission that it takes to see an object.
VIEW = "View"


class ContentGone(TaskError):
    """The object is not there any more."""


class ContentNotVisible(TaskError):
    """The user of the job may not see the object."""


@implementer(IReference)
class Content(NamedTuple):
    """Stands for an object of Zope in the input of a job.

    Given as such, by `reference`, it is the task's to resolve: with another permission, or one
    that goes on where some object is gone.

    :ivar path: its path from the root of Zope, such as ``/Plone/news``.
    :ivar uid: its UID, by which it is found where it was moved to; None if it has none.
    """

    path: str
    uid: str | None = None

    def resolve(self, permission: str | None = VIEW) -> Any:
        """Return the object, wrapped in its containers, for use within a job.

        :param permission: what the user of the job needs there; None asks for none.
        :raises ContentGone: it is not there any more.
        :raises ContentNotVisible: the user lacks the permission.

        Transaction: reads only.
        """
        root = _root()
        found = root.unrestrictedTraverse(self.path.lstrip("/"), None)
        if found is None or (self.uid is not None and _uid_of(found) != self.uid):
            found = self._moved(root)
        if found is None:
            raise ContentGone(f"{self.path} is not there any more")
        if permission and not getSecurityManager().checkPermission(permission, found):
            user = getSecurityManager().getUser()
            who = None if user is None else user.getId()
            raise ContentNotVisible(
                f"{who or 'nobody'} has no permission {permission!r} at {self.path}"
            )
        return found

    def _moved(self, root: Any) -> Any:
        catalog = getattr(getSite(), "portal_catalog", None)
        if self.uid is None or catalog is None:
            return None
        for brain in catalog.unrestrictedSearchResults(UID=self.uid):
            return root.unrestrictedTraverse(brain.getPath().lstrip("/"), None)
        return None


def reference(content: Any) -> Content:
    """Return what stands for an object in the input of a job.

    :raises InvalidInput: it has no path from the root of Zope.

    Transaction: reads only.
    """
    path = content.getPhysicalPath() if hasattr(content, "getPhysicalPath") else ()
    if not path or path[0] != "":
        raise InvalidInput(
            f"{content!r} has no path from the root of Zope: give it as traversal does, wrapped"
        )
    return Content("/".join(path) or "/", _uid_of(content))


def reference_if_stored(content: Any) -> Content | None:
    """Return `reference` of an object, the adapter that ``add`` asks for.

    What is new and stands nowhere yet, such as a file that was made for the job, is stored with it:
    None.

    :raises InvalidInput: it is in the database, and has no path from the root of Zope.

    Transaction: reads only.
    """
    is_new = getattr(aq_base(content), "_p_jar", None) is None
    if is_new and aq_parent(aq_inner(content)) is None:
        return None
    return reference(content)


def _uid_of(content: Any) -> str | None:
    try:
        from plone.uuid.interfaces import IUUID
    except ImportError:
        return None
    uid = IUUID(content, None)
    return None if uid is None else str(uid)


def _root() -> Any:
    request = getRequest()
    parents = None if request is None else request.get("PARENTS")
    if not parents:
        raise LookupError("there is no request: content is resolved within a job or a request")
    return parents[-1]


# -- tasks that many want ------------------------------------------------------------------------


class _ViewCall(NamedTuple):
    content: Content
    view: str
    parameters: dict[str, Any]


class _FunctionCall(NamedTuple):
    content: Content
    function: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


def call_view(service: Any, content: Any, view: str = "", **parameters: Any) -> int:
    """Add a job that calls a view of an object as the current user; return its id.

    :param view: its name, such as ``@@export``, or that of a method; empty calls the object itself.
    :param parameters: what its request has as form fields.

    Transaction: writes, but does not commit.
    """
    call = _ViewCall(reference(content), view, parameters)
    jobid: int = service.add("lovely.remotetask.view", tuple(call))
    return jobid


def call_function(
    service: Any, content: Any, function: Any, *arguments: Any, **keywords: Any
) -> int:
    """Add a job that calls a function with an object and arguments; return its id.

    :param function: a function of a module, or its dotted name.

    Transaction: writes, but does not commit.
    """
    name = function if isinstance(function, str) else _name_of(function)
    if _function_named(name) is None:
        raise InvalidArgument(f"there is no function {name}")
    call = _FunctionCall(reference(content), name, arguments, keywords)
    jobid: int = service.add("lovely.remotetask.function", tuple(call))
    return jobid


def _name_of(function: Any) -> str:
    name = f"{getattr(function, '__module__', None)}.{getattr(function, '__qualname__', None)}"
    if _function_named(name) is not function:
        raise InvalidArgument(f"{function!r} cannot be found by its name in other processes")
    return name


def _function_named(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(import_module(module), attribute, None)
    except (ImportError, ValueError):
        return None


@task("lovely.remotetask.view")
def run_view(input: Any) -> Any:
    """Call a view of an object; what it returns is the result if it is plain text."""
    call = _ViewCall(Content(*input[0]), *input[1:])
    content = call.content.resolve()
    request = getRequest()
    request.form.update(call.parameters)
    view = content.restrictedTraverse(call.view) if call.view else content
    result = view()
    return result if isinstance(result, (str, int, float, dict, list, type(None))) else None


@task("lovely.remotetask.function")
def run_function(input: Any) -> Any:
    """Call a function with an object and arguments."""
    call = _FunctionCall(Content(*input[0]), *input[1:])
    function = _function_named(call.function)
    if function is None:
        raise TaskError(f"there is no function {call.function}")
    return function(call.content.resolve(), *call.arguments, **call.keywords)
