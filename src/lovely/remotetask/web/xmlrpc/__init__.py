# SPDX-License-Identifier: ZPL-2.1
"""For programs, by XML-RPC.

From top to bottom; each uses only those below it.

``face``     where it is answered
``methods``  what can be called
``wire``     values, calls and answers as XML
"""
