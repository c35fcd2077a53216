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
    MemoryError,  # a shape that is too large
)
"""Exceptions of NumPy, JSON and `zipfile` for bytes that are not the original ones. `OSError` is not among them."""
