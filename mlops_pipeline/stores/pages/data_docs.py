"""Great Expectations: the configured rules as a suite per source, and its pages about a sample.

Belongs here: translating rules into expectations, running them on frames, writing pages. The result
that counts is lifecycle/ingest/validation.py's, in SQL over all rows; these pages are for people.

Where the two differ on purpose: an expectation counts a NaN as missing (SQL: as not finite),
judges completeness before quarantine, looks at rows that no revision has replaced, and counts
every row of a duplicate key (SQL: all but the first). Great Expectations' own pages load styles,
scripts and a counted logo from other hosts; those references are taken out, so that opening a
page fetches nothing.
"""

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_pipeline.config.tables import Source
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import DataError, masked
from mlops_pipeline.spec.rules import Check, Completeness, InSet, NotNull, Range

if TYPE_CHECKING:
    import pandas as pd

SAMPLE_ROWS = 10_000
EXAMPLES = 10  # unexpected values shown per expectation, never of hidden columns
SITE = "data_docs"
_REMOTE = re.compile(
    r'<script\b[^>]*\bsrc="https?://[^>]*>\s*</script>'
    r'|<link\b[^>]*\bhref="https?://[^>]*>'
    r'|<img\b[^>]*\bsrc="https?://[^>]*>'
    r"|background:\s*url\('https?://[^;]*;",
    re.DOTALL,
)
_STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 70rem;
  padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0; }
td, th { border-bottom: 1px solid #ccd3da; padding: .3rem .7rem; text-align: left; }
.ge-failed-icon::before { content: "failed"; color: #b3261e; font-weight: 600; }
.ge-success-icon::before { content: "passed"; color: #1f7a3d; }
h4, h5, h6 { font-size: 1.1rem; margin: 1rem 0 .2rem; }
footer, .modal, .btn, input, label, .cooltip, [data-toggle=collapse] { display: none; }
</style></head>"""


@dataclass(frozen=True)
class ExpectationVerdict:
    """One expectation on the sample of one source; `rule` is the name that SQL gives the rule."""

    source: str
    rule: str
    expectation: str
    passed: bool
    rows: int
    unexpected: int


def write_pages(
    folder: Path,
    samples: Mapping[str, "pd.DataFrame"],
    use_case: UseCase,
    *,
    now: datetime,
) -> tuple[list[ExpectationVerdict], dict[str, str]]:
    """Judge each source's sample by its rules; return the verdicts, and {source: its page}.

    A sample is cut to 10,000 rows; `now` is shown as the time of the run. DataError when an
    expectation cannot be computed on its column.
    """
    gx, sources = _great_expectations(), use_case.sources
    folder.mkdir(parents=True, exist_ok=True)
    context = _context(gx, folder)
    assets = context.data_sources.add_pandas("sample")
    verdicts: list[ExpectationVerdict] = []
    for name, frame in samples.items():
        rules = dict(expectations_of(sources[name]))
        suite = context.suites.add(
            gx.ExpectationSuite(
                name=name,
                expectations=list(rules.values()),
                meta={"notes": {"format": "markdown", "content": [_note(sources[name])]}},
            )
        )
        batch = assets.add_dataframe_asset(name).add_batch_definition_whole_dataframe("sample")
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(name=name, data=batch, suite=suite)
        )
        result = definition.run(
            batch_parameters={"dataframe": frame.head(SAMPLE_ROWS)},
            result_format={
                "result_format": "SUMMARY",
                "partial_unexpected_count": 0 if judges_hidden(use_case, name) else EXAMPLES,
            },
            run_id=gx.RunIdentifier(run_name=f"{now:%Y%m%dT%H%M%SZ}", run_time=now),
        )
        verdicts += _verdicts(name, rules, result, len(frame.head(SAMPLE_ROWS)))
    context.build_data_docs()
    for page in folder.rglob("*.html"):
        text = _REMOTE.sub("", page.read_text(encoding="utf-8"))
        page.write_text(text.replace("</head>", _STYLE, 1), encoding="utf-8")
    return verdicts, {
        name: max((folder / "validations" / name).rglob("*.html")).relative_to(folder).as_posix()
        for name in samples
    }


def expectations_of(source: Source) -> Iterator[tuple[str, Any]]:
    """Yield (rule name, expectation) for every rule that Great Expectations can judge."""
    gxe = _great_expectations().expectations

    for rule in source.rules:
        match rule:
            case NotNull(columns=columns):
                for column in columns:
                    yield f"not_null({column})", gxe.ExpectColumnValuesToNotBeNull(column=column)
            case Range(column=column, min=low, max=high) if (low, high) != (None, None):
                yield (
                    _range_name(rule),
                    gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high),
                )
            case InSet(column=column, values=values):
                yield (
                    f"in_set({column})",
                    gxe.ExpectColumnValuesToBeInSet(column=column, value_set=list(values)),
                )
            case Completeness(column=column, at_least=share):
                yield (
                    f"completeness({column})",
                    gxe.ExpectColumnValuesToNotBeNull(column=column, mostly=share),
                )
    unique = source.unique_rule
    if unique is not None and len(source.key) == 1:
        yield unique, gxe.ExpectColumnValuesToBeUnique(column=source.key[0])
    elif unique is not None:
        yield (
            unique,
            gxe.ExpectCompoundColumnsToBeUnique(
                column_list=list(source.key), ignore_row_if="never"
            ),
        )


def judged_in_sql_only(source: Source) -> tuple[str, ...]:
    """Return the names of the rules that no expectation stands for."""
    built_in = ["time_present", "not_in_the_future", "finite", "quarantined_share"]
    judged = (NotNull, Range, InSet, Completeness)
    named = [
        f"check({rule.name}): {rule.expression}" if isinstance(rule, Check) else rule.rule
        for rule in source.rules
        if not isinstance(rule, judged)
    ]
    return (*named, *built_in)


def judges_hidden(use_case: UseCase, name: str) -> bool:
    """Whether an expectation on a source reads a column whose values no page may show."""
    source = use_case.sources[name]
    judged: set[str] = set(source.key)
    for rule in source.rules:
        if isinstance(rule, Range | InSet):  # the others show no value: they count missing ones
            judged.add(rule.column)
    return bool(judged & use_case.hidden_columns(name))


def _great_expectations() -> Any:
    os.environ["GX_ANALYTICS_ENABLED"] = "False"  # read at its import
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports what Python deprecates; nothing of it is ours
        import great_expectations as gx
        import great_expectations.expectations
    return gx


def _context(gx: Any, folder: Path) -> Any:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    context.delete_data_docs_site("local_site")
    context.add_data_docs_site(
        site_name=SITE,
        site_config={
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(folder.absolute()),
            },
        },
    )
    return context


def _verdicts(
    source: str, rules: Mapping[str, Any], result: Any, rows: int
) -> Iterator[ExpectationVerdict]:
    names = {expectation.id: rule for rule, expectation in rules.items()}
    for item in result.results:
        config = item.expectation_config
        rule = names[config.id]
        raised = [text for text in _exceptions(item.exception_info or {}) if text]
        if raised:
            raise DataError(
                "an expectation cannot be computed",
                where=f"{source}: {rule}",
                found=masked(raised[0]),
            )
        unexpected = int(item.result.get("unexpected_count") or 0)
        yield ExpectationVerdict(source, rule, config.type, bool(item.success), rows, unexpected)


def _exceptions(info: Mapping[str, Any]) -> Iterator[str | None]:
    """Yield the message of each failed metric; one metric's is flat, several are nested by id."""
    for found in (info, *info.values()):
        if isinstance(found, Mapping) and found.get("raised_exception"):
            yield str(found.get("exception_message"))


def _range_name(rule: Range) -> str:
    bounds = [f"{bound:g}" if bound is not None else "" for bound in (rule.min, rule.max)]
    return f"range({rule.column}, {bounds[0]}..{bounds[1]})"


def _note(source: Source) -> str:
    return "Judged in SQL only, over all rows: " + "; ".join(judged_in_sql_only(source))
