"""Make the service in the root of Zope: zconsole run etc/zope.conf make_service.py"""

import transaction

from lovely.remotetask.hosts.zope import install

install(app)  # noqa: F821 - zconsole has it
transaction.commit()
