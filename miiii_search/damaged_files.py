"""The exceptions that reading a damaged or forged file can raise."""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib

DAMAGED_FILE_ERRORS = (
    # of zip files, which NumPy's archives and exported studies are
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    NotImplementedError,  # another method of compression
    RuntimeError,  # an encrypted member
    EOFError,
    # of the headers of arrays, of JSON, and of what is built from them
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    SyntaxError,
    tokenize.TokenError,
    OverflowError,
)
"""Exceptions of NumPy, JSON and `zipfile` for bytes that are not the original ones.

`OSError` and `MemoryError` are not among them: an intact file can raise them, too.
"""
