"""Removal of passwords from messages. Servers and libraries may repeat the URLs that they were given."""

from __future__ import annotations

import re

_USER_INFORMATION = re.compile(r"(\w[\w+.-]*://)[^\s'\"<>]*@")
_PARAMETER = re.compile(r"((?:password|passwd|pwd|secret|token)\w*\s*=\s*)[^\s&'\"]+", re.IGNORECASE)


def hide_passwords(text: str) -> str:
    """Replace the user information of every URL in a text, and the value of every parameter that names a password."""
    return _PARAMETER.sub(r"\1***", _USER_INFORMATION.sub(r"\1***@", text))
