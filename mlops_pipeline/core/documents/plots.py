"""Plots as PNG bytes: figures in, a picture out; the same input gives the same bytes.

Belongs here: how a figure looks, one short function per picture, in one style. The page that shows
them is pages.py's. Figures are made through matplotlib's object interface, never pyplot, so that
plotting has no global state.
"""

import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mlops_pipeline.core.documents.pages import metric_title
from mlops_pipeline.core.evaluation.evaluation import Slice, worst_slices
from mlops_pipeline.core.fairness.audit import GroupAudit
from mlops_pipeline.core.fairness.variants import Mitigated
from mlops_pipeline.core.metrics import metrics
from mlops_pipeline.core.modelling.calibration import ReliabilityCurve

WIDTH_INCHES, HEIGHT_INCHES, DPI = 6.4, 4.2, 100
CURVE_POINTS = 500  # more do not show at this size
BARS = 15
FEWEST_BARS = 5  # fewer bars keep the thickness of five
SLICES = 16  # more do not fit; the worst are kept
SCORE_BINS = 30
NAME_LENGTH = 34  # characters of a label beside a bar

BLUE, ORANGE, RED, GREY = "#2563a8", "#c2681c", "#b3261e", "#8a9199"
PALE, INK = "#dfe4ea", "#2b3138"


def reliability_plot(curve: ReliabilityCurve) -> bytes:
    """Plot the observed share of positives against the mean predicted probability, bin by bin."""
    axes = _axes("Calibration on the test part", "mean predicted probability")
    score, observed = np.asarray(curve.mean_score), np.asarray(curve.observed_rate)
    top = max(1e-3, float(max(score.max(), observed.max()))) * 1.08
    axes.plot([0, top], [0, top], color=GREY, linestyle="--", linewidth=1, label="perfect")
    axes.plot(score, observed, color=BLUE, marker="o", markersize=5, label="model")
    axes.set(xlim=(0, top), ylim=(0, top), ylabel="observed share of positives")
    _legend(axes, "upper left")
    fewest, most = min(curve.rows), max(curve.rows)
    rows = f"{fewest:,} to {most:,}" if fewest < most else f"{most:,}"
    _corner(axes, f"{len(curve.rows)} bins of {rows} rows")
    return _png(axes)


def roc_plot(y: ArrayLike, p: ArrayLike) -> bytes:
    """Plot the ROC curve, at most 500 points."""
    axes = _axes("ROC curve", "false positive rate", "true positive rate (recall)")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    selected, found, positives, rows = _curve(y, p)
    if not 0 < positives < rows:
        return _message(axes, "not computable: one class only")
    wrong = np.insert(selected - found, 0, 0) / (rows - positives)
    axes.plot(wrong, np.insert(found, 0, 0) / positives, color=BLUE, linewidth=2)
    return _png(axes)


def precision_recall_plot(y: ArrayLike, p: ArrayLike) -> bytes:
    """Plot precision against recall, at most 500 points, beside the base rate."""
    axes = _axes("Precision and recall", "recall", "precision")
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    selected, found, positives, rows = _curve(y, p)
    if not 0 < positives < rows:
        return _message(axes, "not computable: one class only")
    base = positives / rows
    axes.axhline(base, color=GREY, linestyle="--", linewidth=1, label=f"base rate {base:.1%}")
    axes.step(found / positives, found / selected, where="pre", color=BLUE, linewidth=2)
    _legend(axes, "upper right")
    return _png(axes)


def score_plot(y: ArrayLike, p: ArrayLike, threshold: ArrayLike) -> bytes:
    """Plot how the probabilities of each class are distributed, and the threshold or thresholds."""
    labels = metrics.binary_labels(y)
    scores = metrics.probabilities(p, len(labels))
    axes = _axes("Scores by class", "predicted probability", "share of the class")
    low, high = thresholds_range(threshold)
    top = max(float(scores.max(initial=0.0)), min(high, 1.0), 1e-3)
    edges = np.linspace(0, top, SCORE_BINS + 1)
    for value, name, color in ((0, "negative", BLUE), (1, "positive", ORANGE)):
        chosen = scores[labels == value]
        if len(chosen):
            share = np.histogram(chosen, edges)[0] / len(chosen)
            axes.stairs(share, edges, fill=True, alpha=0.35, color=color)
            axes.stairs(share, edges, color=color, label=f"{name} ({len(chosen):,})")
    if low < high:
        axes.axvspan(low, high, color=GREY, alpha=0.2)
    axes.axvline(low, color=INK, linestyle=":", label=f"threshold {range_text(threshold)}")
    axes.axvline(high, color=INK, linestyle=":")
    axes.set_xlim(0, edges[-1])
    _legend(axes, "upper right")
    return _png(axes)


def confusion_plot(y: ArrayLike, p: ArrayLike, threshold: ArrayLike) -> bytes:
    """Plot the confusion matrix of p >= threshold (one, or by row): rows, shares of the class."""
    labels = metrics.binary_labels(y)
    decisions = metrics.probabilities(p, len(labels)) >= np.asarray(threshold, dtype=np.float64)
    counts = np.array([[np.sum((labels == k) & (decisions == d)) for d in (0, 1)] for k in (0, 1)])
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros((2, 2)), where=totals > 0)
    axes = _axes(f"Decisions at threshold {range_text(threshold)}", "decision", "truth")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(2, 2):
        share = shares[row, column]
        color = "white" if share > 0.55 else INK
        text = f"{counts[row, column]:,}\n{share:.1%} of the class"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=11)
    axes.set_xticks([0, 1], ["no", "yes"])
    axes.set_yticks([0, 1], ["negative", "positive"])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    return _png(axes)


def importance_plot(values: Mapping[str, float], *, title: str, axis: str) -> bytes:
    """Plot the 15 largest values as bars; `axis` says what is measured and in which unit."""
    top = sorted(values.items(), key=lambda pair: (-pair[1], pair[0]))[:BARS]
    axes = _axes(title, axis)
    if not top:
        return _message(axes, "this model has no importance")
    axes.barh([_short(name) for name, _ in top], [value for _, value in top], color=BLUE)
    axes.set_ylim(max(len(top), FEWEST_BARS) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    if len(values) > len(top):
        _corner(axes, f"the largest {len(top)} of {len(values)}")
    return _png(axes)


def learning_plot(curves: Mapping[str, Sequence[float]], kept: int | None = None) -> bytes:
    """Plot the log loss of each part by the number of trees; without curves the picture says so."""
    axes = _axes("Learning curves", "trees", "log loss")
    if not any(curves.values()):
        return _message(axes, "this candidate is fitted in one step")
    colors = {"train": GREY, "validation": BLUE}
    for part, values in curves.items():
        steps = np.arange(1, len(values) + 1)
        axes.plot(steps, values, color=colors.get(part, ORANGE), linewidth=2, label=part)
    if kept is not None:
        axes.axvline(kept, color=INK, linestyle=":", linewidth=1, label=f"{kept} trees kept")
    _legend(axes, "upper right")
    return _png(axes)


def slice_plot(
    slices: Sequence[Slice], metric: str, overall: metrics.Estimate | None = None
) -> bytes:
    """Plot a metric with its interval for up to 16 slices, the worst on top and named in red."""
    title = metric_title(metric)
    ranked = worst_slices(slices, metric, SLICES)
    names = [_short(f"{item.column} = {item.group}") for item in ranked]
    if not names:
        return _message(_axes(f"{title} by slice"), "no slice is computable")
    axes = _axes(f"{title} by slice, worst: {names[0]}")
    for position, estimate in enumerate(item.metrics[metric] for item in ranked):
        color = RED if position == 0 else BLUE
        if estimate.low is not None and estimate.high is not None:
            axes.hlines(position, estimate.low, estimate.high, color=color, linewidth=2)
        axes.plot(estimate.value, position, "o", color=color, markersize=5)
    dashed = ""
    if overall is not None and overall.value is not None:
        axes.axvline(overall.value, color=GREY, linestyle="--", linewidth=1)
        dashed = f"; dashed: all rows, {overall.value:.3f}"
    axes.set_yticks(range(len(names)), names)
    axes.get_yticklabels()[0].set_color(RED)
    axes.set_ylim(len(names) - 0.5, -0.5)
    shown = f", the worst {len(ranked)} of {len(slices)}" if len(ranked) < len(slices) else ""
    axes.set_xlabel(f"{title} with its 95 % interval{shown}{dashed}")
    return _png(axes)


def selection_plot(audit: GroupAudit, at_most: float | None = None) -> bytes:
    """Plot each group's selection rate: grey when left out, the extremes red above `at_most`."""
    axes = _axes(f"Selection rate by {audit.attribute}", "share of the group that is selected")
    groups = [item for item in audit.groups if item.selection_rate.value is not None]
    if not groups:
        return _message(axes, "no group is computable")
    rates = [item.selection_rate.value or 0.0 for item in groups]
    audited = [rate for item, rate in zip(groups, rates, strict=True) if item.excluded is None]
    difference = audit.demographic_parity_difference.value
    is_above = at_most is not None and difference is not None and difference > at_most
    extremes = {min(audited), max(audited)} if is_above and audited else set()
    for position, (item, rate) in enumerate(zip(groups, rates, strict=True)):
        color = GREY if item.excluded else RED if rate in extremes else BLUE
        axes.barh(position, rate, color=color, height=0.6)
        axes.text(rate, position, f" {rate:.1%}", va="center", color=INK, fontsize=9)
    names = [f"{_short(item.group)} ({item.rows:,})" for item in groups]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), FEWEST_BARS) - 0.5, -0.5)
    axes.set_xlim(0, max(*rates, 1e-3) * 1.18)
    axes.grid(visible=False, axis="y")
    return _png(axes)


def mitigation_plot(outcome: Mitigated) -> bytes:
    """Plot each variant's preferred figure against its disparity, on the validation part."""
    axes = _axes(
        "Accuracy against fairness, on the validation part",
        f"demographic parity difference of {', '.join(outcome.attributes)}",
        metric_title(outcome.prefer),
    )
    shown = [
        (item, item.disparity, item.figures[outcome.prefer])
        for item in outcome.variants
        if item.disparity is not None and item.figures[outcome.prefer] is not None
    ]
    for item, disparity, value in shown:
        color = BLUE if item.passes else GREY
        color = ORANGE if item.chosen else INK if item.method == "none" else color
        axes.plot(disparity, value, "o", color=color, markersize=8 if item.chosen else 6)
        name = item.name.removeprefix("group_").replace("_search", "")
        name = f"{name} (chosen)" if item.chosen else name
        place = {"textcoords": "offset points", "xytext": (6, 5)}
        axes.annotate(name, (disparity, value), color=INK, fontsize=7, **place)
    within = min(outcome.within[name] for name in outcome.attributes)
    axes.axvline(outcome.limit, color=RED, linestyle="--", label=f"limit {outcome.limit:.3g}")
    axes.axvline(within, color=GREY, linestyle=":", label=f"within the margin {within:.3g}")
    axes.set_xlim(0, 1.35 * max([outcome.limit, *(disparity for _, disparity, _ in shown)]))
    axes.margins(y=0.15)
    _legend(axes, "best")
    return _png(axes)


class LookPoint(NamedTuple):
    """What a look at a rollout found: the share decided about, and the difference of Brier scores.

    The difference is None, or its bounds are, where they are not computable.
    """

    at: datetime
    share: float
    value: float | None
    lower: float | None
    upper: float | None


def rollout_plot(looks: Sequence[LookPoint], margin: float) -> bytes:
    """Plot the evidence about a version in trial over time, under the share it decides about."""
    axes = _axes("Brier score: new version minus champion", ylabel="less is better")
    known = [item for item in looks if item.value is not None]
    if not known:
        return _message(axes, "no complete label yet")
    at = [item.at for item in known]
    bounded = [item for item in known if item.lower is not None and item.upper is not None]
    low, high = ([getattr(item, name) for item in bounded] for name in ("lower", "upper"))
    axes.fill_between([item.at for item in bounded], low, high, color=BLUE, alpha=0.2,
                      label="holds at any time")  # fmt: skip
    axes.plot(at, [item.value for item in known], color=BLUE, marker="o", markersize=3)
    axes.axhline(0.0, color=GREY, linewidth=1)
    axes.axhline(margin, color=RED, linestyle="--", label=f"margin {margin:g}")
    for before, item in pairwise(looks):
        if item.share != before.share:
            axes.axvline(item.at, color=ORANGE, linestyle=":", linewidth=1)
            axes.annotate(f"{item.share:.0%}", (item.at, margin), color=ORANGE, fontsize=8)
    axes.figure.autofmt_xdate()
    _legend(axes, "best")
    return _png(axes)


def range_text(threshold: ArrayLike) -> str:
    """Return the threshold as text, or from the lowest to the highest of those of the rows."""
    low, high = thresholds_range(threshold)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def thresholds_range(threshold: ArrayLike) -> tuple[float, float]:
    """Return the lowest and the highest threshold."""
    return float(np.min(threshold)), float(np.max(threshold))


def _curve(y: ArrayLike, p: ArrayLike) -> tuple[metrics.Floats, metrics.Floats, float, int]:
    """Return rows and positives at or above each (thinned) score; all positives, all rows."""
    labels = metrics.binary_labels(y)
    ranked = metrics.rank_scores(labels, p)
    ends = ranked.tie_ends
    if len(ends) > CURVE_POINTS:
        ends = ends[np.linspace(0, len(ends) - 1, CURVE_POINTS).round().astype(np.intp)]
    if len(labels) == 0:
        return np.empty(0), np.empty(0), 0.0, 0
    return ends.astype(np.float64) + 1, np.cumsum(ranked.y)[ends], float(labels.sum()), len(labels)


def _axes(title: str, xlabel: str = "", ylabel: str = "") -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=DPI, layout="constrained")
    axes: Any = figure.add_subplot()
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.grid(visible=True, color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=9)
    axes.set_xlabel(xlabel, color=INK, size=9)
    axes.set_ylabel(ylabel, color=INK, size=9)
    return axes


def _png(axes: Any) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    canvas = FigureCanvasAgg(axes.figure)
    canvas.print_png(buffer, metadata={"Software": None})  # its version would change the bytes
    return buffer.getvalue()


def _message(axes: Any, text: str) -> bytes:
    """Return the picture with a text in place of what cannot be drawn."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)
    return _png(axes)


def _legend(axes: Any, where: str) -> None:
    axes.legend(loc=where, frameon=False, fontsize=9, labelcolor=INK)


def _corner(axes: Any, text: str) -> None:
    axes.text(0.99, 0.03, text, transform=axes.transAxes, ha="right", color=GREY, fontsize=8)


def _short(name: str) -> str:
    safe = name.replace("$", r"\$")  # matplotlib would read $...$ as mathematics
    return safe if len(name) <= NAME_LENGTH else f"{safe[: NAME_LENGTH - 1]}…"
