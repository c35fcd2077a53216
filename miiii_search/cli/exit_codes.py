"""The exit codes of the commands. docs/reference/exit-codes.md is written from this module."""

from __future__ import annotations

SUCCESS = 0
"""Success. A worker, a coordinator or `up` that stopped as requested also exits with it, once everything is saved."""

FAILURE = 1
"""An error of the system, such as a full disk or a database that ends the connection, or a bug, with a traceback.

Also: `doctor` found a problem, the worker of `up` died, or the required output could not be written.
"""

MISTAKE = 2
"""A mistake that the user can correct: a wrong option, setting or file, or a storage that cannot be opened.

The error is one line that names the value, the allowed range and what to do.
"""

REFUSED = 77
"""The database refuses the login of a worker (EX_NOPERM of sysexits.h), as after `invite --revoke`."""

STOPPED = 130
"""Ctrl-C, or a request to stop `train`, which writes the part trained so far. So `train && analyze` stops, too."""

SECOND_SIGNAL = 128
"""A second request to stop, which ends the process at once: 128 plus the number of the signal."""
