"""The data steps of a run: ingest every source, accept the versions that passed their rules."""

from collections.abc import Mapping, Sequence

from mlops_pipeline.errors import ValidationError
from mlops_pipeline.lifecycle.compliance.tombstones import forgotten_pseudonyms
from mlops_pipeline.lifecycle.context import AcceptedSource, RunContext
from mlops_pipeline.lifecycle.features.offline import finished_through
from mlops_pipeline.lifecycle.ingest.ingestion import Ingested, ingest
from mlops_pipeline.lifecycle.ingest.validation import Judgement


def ingest_sources(run: RunContext) -> list[Ingested]:
    """Ingest every source; rows of people who were erased stay out."""
    finished = finished_through(run)
    erased = forgotten_pseudonyms(run.ops, run.use_case.name, run.use_case.entity.name)
    done = []
    for name in run.use_case.sources:
        found = ingest(run, name, now=run.now, finished_through=finished, erased=erased)
        run.log.info(f"{name}: {found.rows_added:,} of {found.rows:,} rows new")
        done.append(found)
    return done


def accept_sources(
    run: RunContext, judgements: Sequence[Judgement]
) -> Mapping[str, AcceptedSource]:
    """Move the accepted pointer to the versions that were judged."""
    failed = [
        f"{verdict.source}: {verdict.rule}: {verdict.reason}"
        for judgement in judgements
        for verdict in judgement.verdicts
        if not verdict.passed
    ]
    if failed:
        raise ValidationError(
            "the data were refused; nothing was accepted, downstream keeps the last accepted "
            "versions",
            found="; ".join(failed),
            way_out="look at the quarantined rows in the checks of validated_data, mend the source "
            "or the rule, and run again",
        )
    accepted = {item.source: item.accepted for item in judgements}
    run.set_pointer("accepted", {name: item.to_dict() for name, item in accepted.items()})
    return accepted
