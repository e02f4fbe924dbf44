"""`mlops rollout`: the version in trial, what it lacks, and what a person may do about it."""

from typing import TYPE_CHECKING, Annotated

import typer

from mlops_pipeline.cli.console import (
    AsJson,
    By,
    Name,
    Reason,
    print_json,
    print_table,
    project,
    say,
)

if TYPE_CHECKING:
    from mlops_pipeline.lifecycle.deployments import Steering

rollout_app = typer.Typer(help="A new version's way through its stages.", no_args_is_help=True)

STAGE_COLUMNS = ("stage", "share", "days", "requests", "approval", "entered")
RESULT_COLUMNS = ("name", "outcome", "value", "limit", "rows", "needed", "reason")


@rollout_app.command("status")
def status(use_case: Name, as_json: AsJson = False) -> None:
    """Show the version in trial: its stages, the last look at its evidence, and what it lacks."""
    from mlops_pipeline.lifecycle.rollout_evidence import rollout_status

    with project(use_case) as context:
        found = rollout_status(context)
    if as_json:
        print_json(found)
        return
    say(found["sentence"], lead=f"{use_case}: ", colour="bold")
    if found["version"] is None:
        return
    print_table(STAGE_COLUMNS, ([row[name] for name in STAGE_COLUMNS] for row in found["stages"]))
    look = found["last_look"]
    if look is None:
        say("nobody looked at its evidence yet")
        return
    say(f"{look['at']}: {look['reason']}")
    print_table(RESULT_COLUMNS, ([row[name] for name in RESULT_COLUMNS] for row in look["results"]))


def _steering(action: "Steering", about: str) -> None:
    """Add the command by which a person steers the version in trial."""

    @rollout_app.command(action, help=about)
    def steer(use_case: Name, by: By, reason: Reason) -> None:
        from mlops_pipeline.lifecycle.deployments import steer_trial

        with project(use_case) as context:
            found = steer_trial(context, action, by=by, reason=reason)
        where = f"{found.state}, stage {found.stage_name}"
        say(f"{use_case} version {found.version}: {where}; recorded: {by}: {reason}")


_steering("advance", "Move the version in trial on; where the next stage needs an approval, ask.")
_steering("pause", "Keep the version in trial in its stage; a breach still takes it out.")
_steering("resume", "Let a paused version go on.")
_steering("rollback", "Take the version in trial out: the champion decides about everybody.")


@rollout_app.command("replay")
def replay(
    use_case: Name,
    version: Annotated[int | None, typer.Argument(help="Default: the newest tried one.")] = None,
    *,
    days: Annotated[float, typer.Option(min=0.04, help="Between two looks.")] = 1.0,
    present: Annotated[
        bool, typer.Option("--present", help="By the configuration of now, not of then.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what the guardrails would have said of a version, look by look, on what was logged."""
    from mlops_pipeline.lifecycle.rollout_evidence import replay_rollout

    with project(use_case) as context:
        found = list(replay_rollout(context, version, days=days, is_present=present))
    if as_json:
        print_json(found)
        return
    columns = ("at", "stage", "requests", "step", "reason")
    print_table(columns, ([row[name] for name in columns] for row in found))
