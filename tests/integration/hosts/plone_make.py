# SPDX-License-Identifier: ZPL-2.1
"""Makes the site for the tests in a real Plone, with a service and users; run by zconsole."""

import transaction
from AccessControl.SecurityManagement import newSecurityManager
from plone import api
from Products.CMFPlone.factory import addPloneSite
from zope.component.hooks import setSite

app = globals()["app"]
newSecurityManager(None, app.acl_users.getUserById("admin").__of__(app.acl_users))
addPloneSite(
    app,
    "Plone",
    title="Shop",
    setup_content=False,
    default_language="de",
    extension_ids=(
        "plone.app.contenttypes:default",
        "plone.restapi:default",
        "reindexing:default",
    ),
)
setSite(app.Plone)
USERS = {
    "jane": ("Member", "Site Administrator"),
    "joe": ("Member",),
    "edith": ("Member", "Contributor", "Editor"),
}
for name, roles in USERS.items():
    api.user.create(
        email=f"{name}@example.com", username=name, password="Secret-12345", roles=roles
    )
transaction.commit()
