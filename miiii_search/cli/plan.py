"""The command that predicts how long a study takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from miiii_search.cli.options import (
    DEFAULT_STORAGE,
    JsonOption,
    PresetOption,
    SetOption,
    SpecOption,
    StorageOption,
    TrialsOption,
)
from miiii_search.cli.output import print_result, write_result
from miiii_search.errors import MiiiiSearchError

if TYPE_CHECKING:
    from miiii_search.config.study_spec import StudySpec
    from miiii_search.study.plan import Plan


def plan(
    preset: PresetOption = None,
    gpu: Annotated[
        str | None, typer.Option(metavar="NAME", help="GPU to predict for: h200, h100, a100 or 4090.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Number of GPUs, or of machines with the measured speed.")] = 1,
    lanes: Annotated[
        int | None, typer.Option(min=1, help="Lanes per GPU. By default what a worker with --lanes auto would choose.")
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(
            "--lane-epochs-per-second", metavar="SPEED", min=1e-6, help="Measured speed of all lanes together."
        ),
    ] = None,
    like: Annotated[
        str | None, typer.Option(metavar="STUDY", help="Study whose running trials give the measured speed.")
    ] = None,
    storage: StorageOption = DEFAULT_STORAGE,
    spec_file: SpecOption = None,
    settings: SetOption = None,
    trials: TrialsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict how long a study takes, and what it costs.

    The speed of a GPU is computed from compiled programs. It was not measured. A measured speed is the figure in
    epochs/s that `work` and `status` print. Nothing is created.

    Examples:
        miiii-search plan --preset paper --gpu h200
        miiii-search plan --preset paper --gpu 4090 --gpus 2
        miiii-search plan --preset paper --lane-epochs-per-second 4800 --json
    """
    import json

    from miiii_search.cli.study_request import StudyRequest

    request = StudyRequest(None, storage, preset, spec_file, settings, trials, None)
    result = _make_plan(request.spec(), gpu, gpus, lanes, speed, like, storage)
    if as_json:
        write_result(json.dumps(result.to_json()) + "\n")
        return
    from miiii_search.cli.views.plan import plan_view

    print_result(plan_view(result))


def _make_plan(
    spec: StudySpec,
    gpu: str | None,
    gpus: int,
    lanes: int | None,
    speed: float | None,
    like: str | None,
    storage: str,
) -> Plan:
    """Return the plan from the one speed that the options name.

    Raises:
        MiiiiSearchError: None or several of `gpu`, `speed` and `like` are given, or there is no such speed.
    """
    from miiii_search.study.plan import plan_at_speed, plan_on_gpu

    if sum(option is not None for option in (gpu, speed, like)) != 1:
        raise MiiiiSearchError(
            "plan needs one speed: that of a GPU (--gpu h200), a measured one (--lane-epochs-per-second 4800), "
            "or that of a study that is being trained (--like STUDY)"
        )
    if gpu is not None:
        return plan_on_gpu(spec, gpu, gpus, lanes)
    if lanes is not None:
        raise MiiiiSearchError("--lanes belongs to --gpu: a measured speed has a number of lanes already; leave it out")
    return plan_at_speed(spec, speed or _measured_speed(like, storage), gpus)


def _measured_speed(study_name: str | None, storage: str) -> float:
    """Return the epochs per second of all running trials of a study together.

    Raises:
        MiiiiSearchError: There is no such study, or no trial of it is being trained.
    """
    from miiii_search.cli.resolve import open_study
    from miiii_search.storage.hints import hint
    from miiii_search.study.status import read_status

    study = open_study(study_name, storage)
    speed = read_status(study, pruned=0).epochs_per_second
    if not speed:
        raise MiiiiSearchError(
            f"no trial of study `{study.name}` is being trained, so it has no speed; start a worker: "
            f"{hint('work', '--study', study.name, database=study.database)}"
        )
    return speed
