"""The options of all commands, as annotated types. An option that several commands have is written once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from miiii_search.environment import clean_value, read_value
from miiii_search.errors import MiiiiSearchError
from miiii_search.storage.hints import DEFAULT_STORAGE

__all__ = ["DEFAULT_STORAGE"]


def read_storage_url(value: str) -> str:
    """Return the storage URL of `--storage`, or that in the file named by `MIIII_STORAGE_FILE`.

    Args:
        value: The value of `--storage`, of `MIIII_STORAGE`, or the default.

    Raises:
        MiiiiSearchError: The file cannot be read or is empty, or the URL contains a control character.
    """
    path = os.environ.get("MIIII_STORAGE_FILE")
    if value != DEFAULT_STORAGE or not path:
        return clean_value(value, "--storage")
    try:
        url = read_value(Path(path), "MIIII_STORAGE_FILE")
    except OSError as error:
        raise MiiiiSearchError(
            f"cannot read the storage's URL from MIIII_STORAGE_FILE={path}: {error.strerror}; "
            "correct MIIII_STORAGE_FILE, or give the URL with --storage"
        ) from None
    if not url:
        raise MiiiiSearchError(f"the file {path} of MIIII_STORAGE_FILE is empty: write the storage's URL into it")
    return url


# Study and storage. The defaults of options that are None are chosen where they are used, so that help shows them once.

StorageOption = Annotated[
    str,
    typer.Option(
        "--storage",
        envvar="MIIII_STORAGE",
        callback=read_storage_url,
        help="Storage URL: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DB. MIIII_STORAGE_FILE names a file "
        "that contains it.",
    ),
]
StudyOption = Annotated[
    str | None,
    typer.Option("--study", envvar="MIIII_STUDY", help="Study name. Optional if the storage holds only one study."),
]
NewStudyOption = Annotated[
    str | None,
    typer.Option(
        "--study", envvar="MIIII_STUDY", help="Study name. By default that of the specification file or of the preset."
    ),
]
DeletedStudyOption = Annotated[
    str | None, typer.Option("--study", envvar="MIIII_STUDY", help="Study name. It must be given.")
]
CheckedStudyOption = Annotated[
    str | None,
    typer.Option("--study", envvar="MIIII_STUDY", help="Study to open too, to check whether it can be read."),
]
ImportedNameOption = Annotated[
    str | None, typer.Option("--study", help="Name of the imported study. By default the name in the file.")
]

# The specification of a study.

PresetOption = Annotated[
    str | None, typer.Option(envvar="MIIII_PRESET", help="Preset: demo, fast, narrow, paper or authors-code.")
]
SpecOption = Annotated[
    Path | None, typer.Option("--spec", help="Specification as a TOML or JSON file, instead of a preset.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", envvar="MIIII_SET", help="Change a field of the specification. Repeatable."
    ),
]
TrialsOption = Annotated[int | None, typer.Option(envvar="MIIII_TRIALS", help="Maximum number of trials.", min=1)]
ArtifactsOption = Annotated[
    str | None,
    typer.Option(
        envvar="MIIII_ARTIFACTS",
        metavar="URL",
        help="Artifact store of a new study: /FOLDER or s3://BUCKET/PREFIX. By default its database.",
        show_default=False,
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Only print the specification, as a file that --spec accepts.")
]
# Without the variable MIIII_SET, which is meant for the creation of a study.
ExtensionSetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a field of the specification. Repeatable."),
]
ExtensionTrialsOption = Annotated[
    int | None, typer.Option("--trials", help="New maximum number of trials, including those that exist.", min=1)
]

# Workers and coordinators.

LanesOption = Annotated[
    str,
    typer.Option(
        metavar="N|auto",
        envvar="MIIII_LANES",
        help="Number of trials to train at a time. auto measures which number is fastest.",
    ),
]
SnapshotsOption = Annotated[
    Path | None, typer.Option(help="Folder for the weights of every trial at epochs 256, 512, 1024, …")
]
CheckpointsOption = Annotated[
    Path | None,
    typer.Option(
        "--checkpoints",
        help="Local folder for checkpoints of running trials. By default miiii-search/checkpoints in XDG_STATE_HOME.",
        show_default=False,
    ),
]
CheckpointEveryOption = Annotated[float, typer.Option(min=0.1, help="Seconds between two checkpoint files of a trial.")]
ShareEveryOption = Annotated[
    float, typer.Option(min=0.1, help="Seconds between two copies of a checkpoint in the database.")
]
GraceOption = Annotated[float, typer.Option(min=1, help="Seconds that saving may take after a request to stop.")]
DeviceOption = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda", envvar="MIIII_DEVICE", help="Device. With cuda, refuse to train without a GPU."
    ),
]
AnyVersionOption = Annotated[
    bool,
    typer.Option(
        "--any-version",
        envvar="MIIII_ANY_VERSION",
        help="Train a study even if its results come from another training program.",
    ),
]
KeepRunningOption = Annotated[
    bool, typer.Option(help="When the study is done, wait until it is extended instead of exiting.")
]
KeepSpecOption = Annotated[
    bool, typer.Option("--keep/--no-keep", help="Keep the specification of an existing study, even if options differ.")
]
LivenessFileOption = Annotated[
    Path | None,
    typer.Option(
        "--liveness-file", envvar="MIIII_LIVENESS_FILE", help="File to touch every second, for a healthcheck."
    ),
]
ExitCodeOnStopOption = Annotated[
    int,
    typer.Option(
        min=0, max=255, help="Exit code after a request to stop, for a scheduler that then starts another worker."
    ),
]
IdleWhenRefusedOption = Annotated[
    bool,
    typer.Option(
        "--idle-when-refused",
        help="Wait without training if the login is refused, for a container that would be restarted.",
    ),
]
WorkerNameOption = Annotated[
    str | None, typer.Option("--name", envvar="MIIII_WORKER_NAME", help="Worker name in the dashboard and in status.")
]
MetricsPortOption = Annotated[
    int | None,
    typer.Option(
        envvar="MIIII_METRICS_PORT", help="Port for Prometheus metrics; 0 selects a free one.", min=0, max=65535
    ),
]
MetricsHostOption = Annotated[
    str,
    typer.Option(
        envvar="MIIII_METRICS_HOST", help="Address for Prometheus metrics. They are served without a password."
    ),
]
WithParentOption = Annotated[bool, typer.Option("--with-parent", hidden=True)]

# The dashboard.

PortOption = Annotated[int, typer.Option(help="Port of the dashboard; 0 selects a free one.", min=0, max=65535)]
ShowDashboardOption = Annotated[
    bool, typer.Option("--dashboard/--no-dashboard", help="Serve optuna-dashboard while the study runs.")
]
HostOption = Annotated[str, typer.Option(help="Address to listen on.")]
WritableOption = Annotated[bool, typer.Option(help="Allow visitors to change studies.")]
PublishedOption = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS:PORT", help="In a container: where its machine publishes the port."),
]
RootPathOption = Annotated[
    str,
    typer.Option(
        metavar="PATH", envvar="MIIII_DASHBOARD_ROOT_PATH", help="Path below which a proxy serves the dashboard."
    ),
]

# Results.

RunFolderArgument = Annotated[Path | None, typer.Argument(metavar="RUN_DIR", help="Folder that `train` wrote.")]
RunFoldersArgument = Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="Folders that `train` wrote.")]
TrialOption = Annotated[int | None, typer.Option(help="Trial number, instead of a folder.", min=0)]
TrialSnapshotsOption = Annotated[
    Path | None,
    typer.Option(help="Folder of `work --snapshots`, to show how the circuits of a trial form."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]

# Installations of containers.

KeysOption = Annotated[
    Path | None,
    typer.Option("--keys", envvar="MIIII_KEYS", help="Folder with the keys of an installation of containers."),
]
AccessOption = Annotated[
    Path | None,
    typer.Option("--access", envvar="MIIII_ACCESS", help="Folder with those of the keys that workers may read."),
]
