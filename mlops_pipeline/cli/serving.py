"""`mlops serve`, the keys of its clients, and what people say about its answers."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlops_pipeline.cli import console
from mlops_pipeline.errors import ConfigError
from mlops_pipeline.stores.clock import machine_now
from mlops_pipeline.stores.settings import Settings, parse_time

if TYPE_CHECKING:
    from mlops_pipeline.stores.predictions import PredictionLog

keys_app = typer.Typer(help="Keys of the service's clients.", no_args_is_help=True)

YEAR = timedelta(days=365)
KeyName = Annotated[str, typer.Argument(help="Whose key it is; kept with all it is used for.")]
Expires = Annotated[str | None, typer.Option(help="Its end (ISO, UTC); default in a year.")]


def serve(
    use_case: Annotated[
        list[str] | None,
        typer.Argument(metavar="[USE_CASE]...", help="Which use cases; default: every one."),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Where it listens.")] = 8000,
    host: Annotated[str, typer.Option(help="Another address needs keys.")] = "127.0.0.1",
    *,
    require_keys: Annotated[bool, typer.Option("--require-keys", help="On loopback too.")] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Answer everybody who reaches the address.")
    ] = False,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
) -> None:
    """Serve predictions and online features over HTTP."""
    http = import_module("mlops_pipeline.serving.http")  # entrances do not import each other
    use_cases = (
        {name: console.find_use_case(name) for name in use_case}
        if use_case
        else console.all_use_cases()
    )
    if (tls_cert is None) != (tls_key is None):
        raise ConfigError("a certificate and its key go together", way_out="--tls-cert, --tls-key")
    server = http.http_server(
        use_cases,
        Settings.from_environment(),
        port,
        host=host,
        is_strict=require_keys,
        is_insecure=insecure,
        tls=(tls_cert, tls_key) if tls_cert and tls_key else None,
    )
    scheme = "https" if tls_cert else "http"
    console.say(f"predictions: POST {scheme}://{host}:{port}/v1/predict")
    console.say(f"features: {scheme}://{host}:{port}/features/ENTITY/ID?features=a,b")
    server.run()


review_app = typer.Typer(help="Answers that a person looks at.", no_args_is_help=True)


@review_app.command("list")
def list_waiting(
    use_case: console.Name,
    limit: Annotated[int, typer.Option(min=1, help="How many, the oldest first.")] = 20,
    as_json: console.AsJson = False,
) -> None:
    """List the answers that wait for a person."""
    from mlops_pipeline.lifecycle.serve import answer
    from mlops_pipeline.stores.reviews import waiting_for_review

    with _log(use_case) as (log, _):
        found = waiting_for_review(log, use_case, limit)
    if as_json:
        console.print_json([{**answer(one), "features": dict(one.features)} for one in found])
        return
    heads = ("prediction_id", "entity_id", "predicted_at", "probability", "threshold", "decision")
    rows = ([document[head] for head in heads] for document in map(answer, found))
    if found:
        console.print_table(heads, rows)
    else:
        console.say("nothing waits for a person")


@review_app.command("decide")
def decide(
    use_case: console.Name,
    prediction_id: Annotated[str, typer.Argument(help="From the list.")],
    verdict: Annotated[str, typer.Argument(help="confirmed or overturned.")],
    by: console.By,
    reason: console.Reason,
) -> None:
    """Confirm or overturn an answer: in its receipt from then on, and in the audit chain."""
    from mlops_pipeline.lifecycle.reviews import Said, review_answer

    with _log(use_case) as (log, settings), console.open_ops() as ops:
        said = Said(verdict, by, reason)
        made = review_answer(log, ops, use_case, prediction_id, said, now=settings.now())
    decision = "positive" if made.decision else "negative"
    console.say(f"{prediction_id}: {made.verdict}, the decision is {decision}; recorded: {made.by}")


@review_app.command("sample")
def sample(
    use_case: console.Name,
    at_random: Annotated[int, typer.Option("--random", min=0, help="Each equally likely.")] = 100,
    uncertain: Annotated[int, typer.Option(min=0, help="Those nearest to their threshold.")] = 100,
    days: Annotated[int, typer.Option(min=1, help="Of the last so many days.")] = 30,
    seed: Annotated[int, typer.Option(help="Same log, same seed, same rows.")] = 7,
) -> None:
    """Print answers to label as CSV, with their features and an empty column `label`."""
    from mlops_pipeline.lifecycle.reviews import labelling_sample

    with _log(use_case) as (log, settings):
        text = labelling_sample(
            *(log, use_case), at_random=at_random, uncertain=uncertain, days=days, seed=seed,
            now=settings.now(),
        )  # fmt: skip
    typer.echo(text, nl=False)


@contextmanager
def _log(use_case: str) -> "Iterator[tuple[PredictionLog, Settings]]":
    from mlops_pipeline.stores.predictions import PredictionLog

    console.find_use_case(use_case)
    settings = Settings.from_environment()
    with PredictionLog(settings.predictions_url) as log:
        yield log, settings


@keys_app.command("create")
def create(
    name: KeyName,
    scopes: Annotated[str, typer.Option(help="predict, label, review, read, admin; by commas.")],
    expires: Expires = None,
    by: console.OptionalBy = None,
) -> None:
    """Make a key and print it: it is shown this once."""
    from mlops_pipeline.lifecycle.api_keys import create_key

    wanted = tuple(filter(None, (word.strip() for word in scopes.split(","))))
    with console.open_ops() as ops:
        end = _end(expires)
        key = create_key(
            ops, name, wanted, by=by or getpass.getuser(), expires_at=end, now=machine_now()
        )
    _print_key(key, name, f"for {', '.join(wanted)}, until {end.isoformat()}")


@keys_app.command("list")
def list_all(as_json: console.AsJson = False) -> None:
    """List the keys, also those that ended; never their text."""
    from mlops_pipeline.lifecycle.api_keys import list_keys

    with console.open_ops() as ops:
        found, now = list_keys(ops), machine_now()
    rows = []
    for key in found:
        ended = "expired" if key.revoked_by is None else f"revoked by {key.revoked_by}"
        state = "valid" if key.is_valid(now) else ended
        made, end = key.created_at.isoformat(), key.expires_at.isoformat()
        rows.append((key.id, key.name, ", ".join(key.scopes), state, key.by, made, end))
    heads = ("id", "name", "scopes", "state", "by", "created_at", "expires_at")
    if as_json:
        console.print_json([dict(zip(heads, row, strict=True)) for row in rows])
    elif rows:
        console.print_table(heads, rows)
    else:
        console.say("there is no key")


@keys_app.command("revoke")
def revoke(name: KeyName, by: console.OptionalBy = None) -> None:
    """End every key of a name; servers refuse it within two seconds."""
    from mlops_pipeline.lifecycle.api_keys import revoke_key

    with console.open_ops() as ops:
        count = revoke_key(ops, name, by=by or getpass.getuser(), now=machine_now())
    console.say(f"{name}: {count} key{'s' if count > 1 else ''} revoked")


@keys_app.command("rotate")
def rotate(
    name: KeyName,
    expires: Expires = None,
    overlap_hours: Annotated[
        int, typer.Option(min=0, help="How long the key before still counts.")
    ] = 24,
    by: console.OptionalBy = None,
) -> None:
    """Make another key of a name and print it; the one before ends soon."""
    from mlops_pipeline.lifecycle.api_keys import rotate_key

    with console.open_ops() as ops:
        end, now = _end(expires), machine_now()
        old_end = now + timedelta(hours=overlap_hours)
        key = rotate_key(
            ops, name, by=by or getpass.getuser(), ends_at=old_end, expires_at=end, now=now
        )
    _print_key(key, name, f"until {end.isoformat()}; the one before until {old_end.isoformat()}")


def _end(expires: str | None) -> datetime:
    return machine_now() + YEAR if expires is None else parse_time(expires)


def _print_key(key: str, name: str, about: str) -> None:
    """Print the key alone on standard output, for scripts; what it is for people."""
    console.errors.print(f"{name}: {about}; the key is shown this once")
    typer.echo(key)
