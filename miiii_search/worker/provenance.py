"""The version of the code that trains, as recorded with every trial."""

from __future__ import annotations

import subprocess
from pathlib import Path


def source_commit() -> str | None:
    """Return the git commit of the running code, with `-dirty` if files were changed; None outside a checkout."""
    package = Path(__file__).resolve().parents[1]
    try:
        described = subprocess.run(
            ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        tracked = subprocess.run(
            ["git", "-C", str(package), "ls-files", "--error-unmatch", __file__],
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # An installed package may lie inside an unrelated checkout. Only a tracked file counts.
    return described.stdout.strip() or None if described.returncode == tracked.returncode == 0 else None
