# SPDX-License-Identifier: ZPL-2.1
"""Values, calls and answers as XML."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, time, timezone
from decimal import Decimal
from typing import Any
from xmlrpc.client import DateTime, Fault, Marshaller, Unmarshaller, escape

from defusedxml.xmlrpc import DefusedExpatParser

from lovely.remotetask.errors import RemoteTaskError, describe, shown
from lovely.remotetask.web.facts import MAX_DEPTH, in_order

#: Codes of faults, as XML-RPC clients know them; those of errors of the package are HTTP's.
PARSE_ERROR = -32700
UNKNOWN_METHOD = -32601
WRONG_ARGUMENTS = -32602
CANNOT_BE_SENT = -32603

#: What XML cannot have in a text, however it is written.
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_MAX_INT, _MAX_I8 = 2**31, 2**63
_MAX_BITS = 10_000


class Unsendable(RemoteTaskError):
    """The value has no form in XML-RPC."""


def read_call(body: bytes) -> tuple[str, tuple[Any, ...]]:
    """Return the name of the method that is called, and its arguments.

    :raises Fault: it is no call.
    """
    target = Unmarshaller(use_builtin_types=True)
    parser = DefusedExpatParser(target, forbid_dtd=True)
    try:
        parser.feed(body)
        parser.close()
        arguments = target.close()
    except Exception as error:  # the standard library raises anything for what is malformed
        raise Fault(PARSE_ERROR, f"no call of XML-RPC: {_in_xml(describe(error)[:200])}") from None
    name = target.getmethodname()
    if not name:
        raise Fault(PARSE_ERROR, "no call of XML-RPC: it names no method")
    return name, arguments


def write_answer(value: Any) -> bytes:
    """Return the answer with a value.

    :raises Unsendable: it has no form.
    """
    params = _Marshaller("utf-8", allow_none=True).dumps((_sendable(value, 0),))
    return _response(params)


def write_fault(fault: Fault) -> bytes:
    """Return the answer that tells of a fault."""
    told = Fault(fault.faultCode, _in_xml(fault.faultString))
    return _response(_Marshaller("utf-8").dumps(told))


def _response(content: str) -> bytes:
    text = f"<?xml version='1.0'?>\n<methodResponse>\n{content}</methodResponse>\n"
    return text.encode("utf-8", "xmlcharrefreplace")


def _in_xml(text: str) -> str:
    return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)


# -- values --------------------------------------------------------------------------------


def _sendable(value: Any, depth: int) -> Any:
    """Return a value of the types that are sent; see the table in the documentation.

    :raises Unsendable: it has none.
    """
    if depth > MAX_DEPTH:
        raise Unsendable(f"it is nested deeper than {MAX_DEPTH} levels")
    kind = type(value)
    if value is None or kind in (bool, float, bytes):
        return value
    if kind is str:
        # As base64 of its UTF-8, where XML has no way to write it.
        is_bad = _NOT_IN_XML.search(value) is not None
        return value.encode("utf-8", "surrogatepass") if is_bad else value
    if kind is int:
        if value.bit_length() > _MAX_BITS:
            raise Unsendable(f"an int has more than {_MAX_BITS} bits")
        return value
    if kind in (list, tuple):
        return [_sendable(part, depth + 1) for part in value]
    if kind in (set, frozenset):
        return [_sendable(part, depth + 1) for part in in_order(value)]
    if kind is dict:
        return _struct(value, depth)
    if kind is bytearray:
        return bytes(value)
    if kind is datetime:
        return _date_time(value)
    if kind in (date, time):
        return value.isoformat()
    if kind is Decimal:
        return str(value)
    raise Unsendable(f"a {type(value).__name__} has no form in XML-RPC")


def _date_time(value: datetime) -> DateTime:
    """Return a time; of one with a zone that in UTC."""
    try:
        moment = value if value.utcoffset() is None else value.astimezone(timezone.utc)
    except OverflowError:
        raise Unsendable(f"in UTC there is no time {shown(value)}") from None
    return DateTime(f"{moment.year:04}{moment:%m%dT%H:%M:%S}")


def _struct(value: dict[Any, Any], depth: int) -> dict[str, Any]:
    struct: dict[str, Any] = {}
    for key, part in value.items():
        text = key if type(key) is str else _key(key)
        if text in struct or _NOT_IN_XML.search(text):
            raise Unsendable(f"the key {shown(key)} of a dict has no form, or not one of its own")
        struct[text] = _sendable(part, depth + 1)
    return struct


def _key(key: Any) -> str:
    if key is None or type(key) in (bool, int, float):
        return shown(key)
    raise Unsendable(f"the key {shown(key)} of a dict is no text")


class _Marshaller(Marshaller):
    """Writes values that `_sendable` has returned."""

    dispatch: dict[Any, Any] = dict(Marshaller.dispatch)  # noqa: RUF012 (never changed in place)

    def dump_int(self, value: int, write: Callable[[str], Any]) -> None:
        """Write an int by its size; beyond 64 bits as ``biginteger``, which Python reads."""
        kind = "biginteger"
        if -_MAX_INT <= value < _MAX_INT:
            kind = "int"
        elif -_MAX_I8 <= value < _MAX_I8:
            kind = "i8"
        write(f"<value><{kind}>{value}</{kind}></value>\n")

    def dump_text(self, value: str, write: Callable[[str], Any]) -> None:
        """Write a text; XML would make a line feed of a carriage return."""
        write(f"<value><string>{escape(value).replace(chr(13), '&#13;')}</string></value>\n")

    def dump_struct_in_order(self, value: dict[str, Any], write: Callable[[str], Any]) -> None:
        """Write a dict; its keys are written as texts are."""
        write("<value><struct>\n")
        for key, part in value.items():
            name = escape(key).replace(chr(13), "&#13;")
            write(f"<member>\n<name>{name}</name>\n")
            self.dispatch[type(part)](self, part, write)
            write("</member>\n")
        write("</struct></value>\n")

    dispatch[int] = dump_int
    dispatch[str] = dump_text
    dispatch[dict] = dump_struct_in_order
