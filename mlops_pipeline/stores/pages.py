"""Every HTML page that is written, and those of other libraries: Great Expectations, Evidently.

Frames in, HTML out that fetches nothing. These pages are for people: a rule's result that counts is
found in SQL over all rows. An expectation differs on purpose: it counts a NaN as missing, judges
completeness before quarantine and unreplaced rows only, and every row of a duplicate key.
"""

import base64
import hashlib
import html
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_pipeline.config.tables import Source
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import DataError, masked, visible
from mlops_pipeline.spec.rules import Check, Completeness, InSet, NotNull, Range
from mlops_pipeline.stores.files import new_file

if TYPE_CHECKING:
    import pandas as pd

SAMPLE_ROWS = 10_000
EXAMPLES = 10  # unexpected values shown per expectation, never of hidden columns
BUILT_IN = ("time_present", "not_in_the_future", "not_yet_known", "finite", "quarantined_share")
_POLICY = (  # all that a page may do: show itself
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
    "base-uri 'none'; form-action 'none'; script-src "
)
_SCRIPT = re.compile(r"<script\b[^>]*>(.*?)</script>", re.DOTALL)
_PLAIN = re.compile(r"[\w .,:/+()@-]*")
_STAND_IN = re.compile(r"(?:\ue000|\\ue000)(\d+)(?:\ue001|\\ue001)")  # as it is, or as in JSON
_REMOTE = re.compile(  # scripts, remote styles and a counted logo of Great Expectations' pages
    r"<script\b.*?</script>"
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
DRIFT_ROWS = 5_000
DRIFTED = 0.1  # Evidently's default for both distances
METHODS = {"numeric": "wasserstein", "category": "jensenshannon"}  # the same at every sample size


def write_page(path: Path, page: str, scripts: Sequence[str] = ()) -> None:
    """Write a page with the policy that nothing is fetched and only these inline scripts run."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in scripts)
    allowed = " ".join(f"'sha256-{digest.decode()}'" for digest in digests) or "'none'"
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}{allowed}">'
    head, opened, rest = page.partition("<head>")
    if not opened:
        raise DataError("a page has no head for its policy", where=str(path), expected="<head>")
    with new_file(path) as work:
        work.write_text(f'{head}{opened}<meta charset="utf-8">{policy}{rest}', encoding="utf-8")


class _StandIns:
    """Stand-ins for texts that other libraries leave raw; the page gets them escaped, once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def of(self, value: Any) -> Any:
        """Return a plain text, or what is no text, as it is, and for another text its stand-in."""
        if not isinstance(value, str) or _PLAIN.fullmatch(value):
            return value
        return f"\ue000{self._numbers.setdefault(value, len(self._numbers))}\ue001"

    def of_frame(self, frame: "pd.DataFrame") -> "pd.DataFrame":
        """Return a frame with stand-ins in its texts and for its columns."""
        texts = frame.select_dtypes(exclude=["number", "bool", "datetime", "datetimetz"])
        replaced = frame.copy()
        replaced[texts.columns] = texts.map(self.of)
        return replaced.rename(columns=self.of)

    def shown(self, page: str, form: Callable[[str], str]) -> str:
        """Return a page with every text in its place again, in a form that is fit for it."""
        texts = list(self._numbers)
        return _STAND_IN.sub(lambda found: form(texts[int(found[1])]), page)


def _in_script(text: str) -> str:
    """Return a text inside of JSON in a script: the joiner keeps `<` from opening a tag."""
    return json.dumps(visible(text))[1:-1].replace("<", "\\u003c\\u2060")


@dataclass(frozen=True)
class ExpectationResult:
    """One expectation on the sample of one source; `rule` is the name that SQL gives the rule."""

    source: str
    rule: str
    expectation: str
    passed: bool
    rows: int
    unexpected: int


def write_data_docs_pages(
    folder: Path, samples: Mapping[str, "pd.DataFrame"], use_case: UseCase, *, now: datetime
) -> tuple[list[ExpectationResult], dict[str, str]]:
    """Hold each source's sample against its rules; return the results, and {source: its page}."""
    gx, sources, stand_ins = _great_expectations(), use_case.sources, _StandIns()
    folder.mkdir(parents=True, exist_ok=True)
    context = _context(gx, folder)
    assets = context.data_sources.add_pandas("sample")
    results: list[ExpectationResult] = []
    for name, frame in samples.items():
        sample = stand_ins.of_frame(frame.head(SAMPLE_ROWS))
        rules = dict(_expectations(gx, sources[name], stand_ins.of))
        sql_only = map(stand_ins.of, judged_in_sql_only(sources[name]))
        note = f"Judged in SQL only, over all rows: {'; '.join(sql_only)}"
        suite = gx.ExpectationSuite(
            name=name,
            expectations=list(rules.values()),
            meta={"notes": {"format": "markdown", "content": [note]}},
        )
        batch = assets.add_dataframe_asset(name).add_batch_definition_whole_dataframe("sample")
        definition = gx.ValidationDefinition(name=name, data=batch, suite=context.suites.add(suite))
        examples = 0 if judges_hidden(use_case, name) else EXAMPLES
        found = context.validation_definitions.add(definition).run(
            batch_parameters={"dataframe": sample},
            result_format={"result_format": "SUMMARY", "partial_unexpected_count": examples},
            run_id=gx.RunIdentifier(run_name=f"{now:%Y%m%dT%H%M%SZ}", run_time=now),
        )
        results += _results(name, rules, found, len(sample))
    context.build_data_docs()
    for page in folder.rglob("*.html"):
        text = _REMOTE.sub("", page.read_text(encoding="utf-8")).replace("</head>", _STYLE, 1)
        write_page(page, stand_ins.shown(text, lambda found: html.escape(visible(found))))
    return results, {
        name: max((folder / "validations" / name).rglob("*.html")).relative_to(folder).as_posix()
        for name in samples
    }


def judged_in_sql_only(source: Source) -> tuple[str, ...]:
    """Return the names of the rules that no expectation stands for."""
    named = [
        f"check({rule.name}): {rule.expression}" if isinstance(rule, Check) else rule.rule
        for rule in source.rules
        if not isinstance(rule, NotNull | Range | InSet | Completeness)
    ]
    return (*named, *BUILT_IN)


def judges_hidden(use_case: UseCase, name: str) -> bool:
    """Whether an expectation on a source reads a column whose values no page may show."""
    source = use_case.sources[name]  # other rules show no value: they count missing ones
    judged = {rule.column for rule in source.rules if isinstance(rule, Range | InSet)}
    return bool({*source.key, *judged} & use_case.hidden_columns(name))


def _expectations(
    gx: Any, source: Source, stand_in: Callable[[Any], Any]
) -> Iterator[tuple[str, Any]]:
    """Yield (rule name, expectation) for every rule that Great Expectations can judge."""
    gxe = gx.expectations
    for rule in source.rules:
        match rule:
            case NotNull(columns=columns):
                for column in columns:
                    expected = gxe.ExpectColumnValuesToNotBeNull(column=stand_in(column))
                    yield f"not_null({column})", expected
            case Range(column=column, min=low, max=high) if (low, high) != (None, None):
                bounds = ["" if bound is None else f"{bound:g}" for bound in (low, high)]
                between = gxe.ExpectColumnValuesToBeBetween(
                    column=stand_in(column), min_value=low, max_value=high
                )
                yield f"range({column}, {'..'.join(bounds)})", between
            case InSet(column=column, values=values):
                among = gxe.ExpectColumnValuesToBeInSet(
                    column=stand_in(column), value_set=list(map(stand_in, values))
                )
                yield f"in_set({column})", among
            case Completeness(column=column, at_least=share):
                mostly = gxe.ExpectColumnValuesToNotBeNull(column=stand_in(column), mostly=share)
                yield f"completeness({column})", mostly
    keys, unique = list(map(stand_in, source.key)), source.unique_rule
    if unique is not None and len(keys) == 1:
        yield unique, gxe.ExpectColumnValuesToBeUnique(column=keys[0])
    elif unique is not None:
        compound = gxe.ExpectCompoundColumnsToBeUnique(column_list=keys, ignore_row_if="never")
        yield unique, compound


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
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.absolute())}
    context.add_data_docs_site(
        site_name="data_docs",
        site_config={
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": store,
        },
    )
    return context


def _results(
    source: str, rules: Mapping[str, Any], found: Any, rows: int
) -> Iterator[ExpectationResult]:
    names = {expectation.id: rule for rule, expectation in rules.items()}
    for item in found.results:
        config, info = item.expectation_config, item.exception_info or {}
        for metric in (info, *info.values()):  # one metric's is flat, several are nested by id
            if isinstance(metric, Mapping) and metric.get("raised_exception"):
                raise DataError(
                    "an expectation cannot be computed",
                    where=f"{source}: {names[config.id]}",
                    found=masked(str(metric.get("exception_message"))),
                )
        unexpected = int(item.result.get("unexpected_count") or 0)
        yield ExpectationResult(
            *(source, names[config.id], config.type, bool(item.success)), rows, unexpected
        )


@dataclass(frozen=True)
class DriftSummary:
    """Distance of each column, largest first: 0 is no drift, from 0.1 on it counts as drifted.

    Numbers: Wasserstein distance in standard deviations of the reference. Texts and truth values:
    Jensen-Shannon distance in nats, at most 0.83.
    """

    scores: dict[str, float]
    skipped: dict[str, str]  # why columns have no distance
    rows_reference: int
    rows_current: int


def write_drift_report(
    path: Path,
    reference: "pd.DataFrame",
    current: "pd.DataFrame",
    *,
    max_rows: int = DRIFT_ROWS,
    seed: int,
) -> DriftSummary:
    """Compare two frames column by column and write Evidently's HTML report, for people."""
    reference, current = _sampled(reference, max_rows, seed), _sampled(current, max_rows, seed)
    kinds, skipped = _comparable(reference, current)
    stand_ins = _StandIns()
    if not kinds:
        found = "; ".join(f"{name}: {why}" for name, why in skipped.items()) or "no columns"
        raise DataError("no column can be compared for drift", found=found)
    before, after = (stand_ins.of_frame(_plain(side, kinds)) for side in (reference, current))
    result = _compare(before, after, {stand_ins.of(name): kind for name, kind in kinds.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    page = stand_ins.shown(result.get_html_str(as_iframe=False), _in_script)
    write_page(path, page, _SCRIPT.findall(page))
    scores = {
        stand_ins.shown(metric["config"]["column"], str): float(metric["value"])
        for metric in result.dict()["metrics"]
        if "column" in metric["config"]
    }
    ranked = dict(sorted(scores.items(), key=lambda pair: (-pair[1], pair[0])))
    return DriftSummary(ranked, skipped, len(reference), len(current))


def _compare(reference: "pd.DataFrame", current: "pd.DataFrame", kinds: dict[str, str]) -> Any:
    for switch in ("DO_NOT_TRACK", "ITERATIVE_DO_NOT_TRACK"):
        os.environ[switch] = "1"  # read when Evidently is imported and when it is used
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies deprecate one another; none is ours
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        columns = {kind: [name for name, own in kinds.items() if own == kind] for kind in METHODS}
        definition = DataDefinition(
            numerical_columns=columns["numeric"], categorical_columns=columns["category"]
        )
        preset = DataDriftPreset(
            columns=list(kinds),
            num_method=METHODS["numeric"],
            cat_method=METHODS["category"],
            num_threshold=DRIFTED,
            cat_threshold=DRIFTED,
        )
        return Report([preset]).run(
            Dataset.from_pandas(current, data_definition=definition),
            Dataset.from_pandas(reference, data_definition=definition),
        )


def _sampled(frame: "pd.DataFrame", rows: int, seed: int) -> "pd.DataFrame":
    if len(frame) == 0:
        raise DataError("a drift report needs rows", found="an empty frame")
    if len(frame) > rows:
        chosen = np.random.default_rng(seed).permutation(len(frame))[:rows]
        frame = frame.iloc[np.sort(chosen)]
    return frame.reset_index(drop=True)


def _comparable(
    reference: "pd.DataFrame", current: "pd.DataFrame"
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the kind of each column that can be compared, and why the others cannot."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    kinds: dict[str, str] = {}
    skipped: dict[str, str] = {}
    sides = {"reference": reference, "current": current}
    for name in dict.fromkeys([*reference.columns, *current.columns]):
        having = [side for side, frame in sides.items() if name in frame]
        empty = [side for side in having if sides[side][name].isna().all()]
        if len(having) == 1:
            skipped[name] = f"only in the {having[0]} frame"
        elif empty:
            skipped[name] = f"no value in the {empty[0]} frame"
        else:
            both = (reference[name], current[name])
            is_number = all(is_numeric_dtype(one) and not is_bool_dtype(one) for one in both)
            kinds[name] = "numeric" if is_number else "category"
    return kinds, skipped


def _plain(frame: "pd.DataFrame", kinds: dict[str, str]) -> "pd.DataFrame":
    """Return finite float64 numbers (others missing) and texts, which every version understands."""
    result = frame[list(kinds)].copy()
    for name, kind in kinds.items():
        if kind == "numeric":
            values = result[name].to_numpy(dtype=np.float64, na_value=np.nan)
            result[name] = np.where(np.isfinite(values), values, np.nan)
        else:
            result[name] = result[name].astype(object).map(str, na_action="ignore")
    return result
