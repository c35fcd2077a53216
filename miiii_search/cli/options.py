"""The options that several commands have, each said once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from miiii_search.environment import clean_value, read_value
from miiii_search.errors import MiiiiSearchError
from miiii_search.study.hints import DEFAULT_STORAGE

__all__ = ["DEFAULT_STORAGE"]


def storage_of(value: str) -> str:
    """A storage as given, or the one in the file that `MIIII_STORAGE_FILE` names. Raises `MiiiiSearchError`."""
    path = os.environ.get("MIIII_STORAGE_FILE")
    if value != DEFAULT_STORAGE or not path:
        return clean_value(value, "--storage")
    try:
        url = read_value(Path(path), "MIIII_STORAGE_FILE")
    except OSError as error:
        raise MiiiiSearchError(
            f"cannot read the storage's URL from MIIII_STORAGE_FILE={path}: {error.strerror}"
        ) from None
    if not url:
        raise MiiiiSearchError(f"the file {path} of MIIII_STORAGE_FILE is empty: write the storage's URL into it")
    return url


# What an option that is None falls back to is decided where it is used, so that help shows it once.
StorageOption = Annotated[
    str,
    typer.Option(
        "--storage",
        envvar="MIIII_STORAGE",
        callback=storage_of,
        help="sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DB; MIIII_STORAGE_FILE names a file with it",
    ),
]
StudyOption = Annotated[
    str | None,
    typer.Option("--study", envvar="MIIII_STUDY", help="The study's name; needless where there is one"),
]
PresetOption = Annotated[
    str | None, typer.Option(envvar="MIIII_PRESET", help="demo, fast, narrow, paper or authors-code")
]
SpecOption = Annotated[Path | None, typer.Option(help="A study's spec as a TOML or JSON file, instead of a preset")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", envvar="MIIII_SET", help="Any field of the spec; may be repeated"),
]
TrialsOption = Annotated[
    int | None, typer.Option(envvar="MIIII_TRIALS", help="The budget: the first so many of the queue", min=1)
]
LanesOption = Annotated[
    str,
    typer.Option(metavar="N|auto", envvar="MIIII_LANES", help="Trials at once; auto: as many as train fastest here"),
]
ArtifactsOption = Annotated[
    str | None,
    typer.Option(
        envvar="MIIII_ARTIFACTS",
        metavar="URL",
        help="Where a new study keeps its artifacts: /FOLDER or s3://BUCKET/PREFIX; unset: its database",
        show_default=False,
    ),
]
SnapshotsOption = Annotated[
    Path | None, typer.Option(help="A folder for the weights of every trial at epochs 256, 512, 1024, …")
]
CheckpointsOption = Annotated[
    Path | None,
    typer.Option(
        help="A folder on this machine for running trials; unset: miiii-search/checkpoints in XDG_STATE_HOME",
        show_default=False,
    ),
]
PortOption = Annotated[int, typer.Option(help="The dashboard's port; 0 is any free one", min=0, max=65535)]
MetricsPortOption = Annotated[
    int | None,
    typer.Option(
        envvar="MIIII_METRICS_PORT", help="Serve metrics for Prometheus; 0 is any free port", min=0, max=65535
    ),
]
MetricsHostOption = Annotated[
    str, typer.Option(envvar="MIIII_METRICS_HOST", help="The address of the metrics; anyone who reaches it reads them")
]
AnyVersionOption = Annotated[
    bool,
    typer.Option(
        "--any-version", envvar="MIIII_ANY_VERSION", help="Train a study whose results another training program made"
    ),
]
WithParent = Annotated[bool, typer.Option("--with-parent", hidden=True)]
KeepRunningOption = Annotated[bool, typer.Option(help="Stay when the study is done, for one that is extended")]
LivenessFileOption = Annotated[
    Path | None,
    typer.Option(
        "--liveness-file", envvar="MIIII_LIVENESS_FILE", help="A file to touch every second, for a healthcheck"
    ),
]
KeysOption = Annotated[
    Path | None,
    typer.Option("--keys", envvar="MIIII_KEYS", help="The folder with the keys of an installation of containers"),
]
AccessOption = Annotated[
    Path | None, typer.Option("--access", envvar="MIIII_ACCESS", help="The folder with what workers may read of them")
]
RunFolderArgument = Annotated[Path | None, typer.Argument(metavar="RUN_DIR", help="A folder that `train` wrote")]
TrialOption = Annotated[int | None, typer.Option(help="A trial's number, instead of a folder", min=0)]
