"""`mlops clock`: what time it is for the product, and moving it."""

import getpass
from typing import Annotated

import typer

from mlops_pipeline.cli.console import AsJson, OptionalBy, all_use_cases, open_ops, print_json, say
from mlops_pipeline.stores.clock import machine_now
from mlops_pipeline.stores.settings import Settings, parse_time

clock_app = typer.Typer(help="Product time: show it, step it, speed it up.", no_args_is_help=True)

Until = Annotated[str | None, typer.Option(help="Not beyond this time (ISO, UTC).")]


@clock_app.command("show")
def show(as_json: AsJson = False) -> None:
    """Show product time and machine time, and how the Clock goes."""
    settings = Settings.from_environment()
    clock = settings.moving_clock()
    if clock is None:
        goes = "fixed by MLOPS_NOW" if settings.fixed_now else "the system's clock"
    else:
        goes = f"{clock.rate:g} times as fast" if clock.rate else "in steps"
    until = clock and clock.until
    now, machine = settings.now(), machine_now()
    if as_json:
        print_json({"now": now, "machine": machine, "goes": goes, "until": until})
        return
    say(f"{now.isoformat()}: {goes}" + (f", until {until.isoformat()}" if until else ""))
    say(f"machine time {machine.isoformat()}")


@clock_app.command("step")
def step(
    to: Annotated[
        str | None, typer.Option(help="A time (ISO, UTC); default when work is due next.")
    ] = None,
    until: Until = None,
    by: OptionalBy = None,
) -> None:
    """Move the Clock once; with --until, the sensor `calendar` goes on by itself."""
    from mlops_pipeline.core.monitoring.calendar import next_stop, plans
    from mlops_pipeline.lifecycle.clock import check_idle, move_clock

    settings, use_cases = Settings.from_environment(), all_use_cases().values()
    end = None if until is None else parse_time(until)
    planned = [plan for use_case in use_cases for plan in plans(use_case).values()]
    target = next_stop(planned, settings.now()) if to is None else parse_time(to)
    with open_ops() as ops:
        check_idle(ops, use_cases)
        now = move_clock(ops, settings, target, by=by or getpass.getuser(), until=end)
    say(f"the Clock is at {now.isoformat()}" + (f", and goes on until {until}" if until else ""))


@clock_app.command("speed")
def speed(
    rate: Annotated[float, typer.Argument(min=0.001, max=1e7, help="How many times as fast.")],
    start: Annotated[
        str | None, typer.Option("--from", help="A time (ISO, UTC); default where it is.")
    ] = None,
    until: Until = None,
    by: OptionalBy = None,
) -> None:
    """Let the Clock run so many times as fast as the system's."""
    from mlops_pipeline.lifecycle.clock import move_clock

    settings = Settings.from_environment()
    begin, end = (None if text is None else parse_time(text) for text in (start, until))
    with open_ops() as ops:
        who = by or getpass.getuser()
        now = move_clock(ops, settings, begin, by=who, rate=rate, until=end)
    say(f"the Clock is at {now.isoformat()} and runs {rate:g} times as fast")


@clock_app.command("system")
def system(by: OptionalBy = None) -> None:
    """Go by the system's clock again."""
    from mlops_pipeline.lifecycle.clock import end_clock

    with open_ops() as ops:
        end_clock(ops, Settings.from_environment(), by=by or getpass.getuser())
    say("the Clock is the system's")
