"""An audit as tables: each figure beside a second reference, doing nothing and its ideal; then what it means."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from unlearn_kit.audits.shadow import SPLITS
from unlearn_kit.metrics import Klom, summary

from ..analysis.tables import MISSING, titled
from .figures import FIGURES, AuditFigure
from .study import Audited, AuditReport

KLOM = (
    "KLoM: KL(unlearned || oracle) in nats, of each example's histograms of margins with 20 equal bins over the range "
    "of both, clipped at 100, floor 1e-5."
)


def _table(title: str, caption: str, headings: Sequence[str]) -> Table:
    """Return an empty table; figures are aligned on the right, words on the left."""
    table = titled(title, caption)
    for heading in headings:
        words = heading in ("", "ideal") or heading.startswith("verdict")
        table.add_column(heading, justify="left" if words else "right")
    return table


def shadow_table(report: AuditReport) -> Table:
    """Return U-LiRA and KLoM of every method as a table."""
    config = report.config
    table = _table(
        f"{config.study.data}: {config.study.rule.text}, {config.models} models on each side",
        f"{KLOM} Median and 95th percentile over examples; ideal: the floor, oracles against oracles.",
        ("", "U-LiRA", "95 % interval", "KLoM forget", "retain", "held out", "verdict on U-LiRA"),
    )
    floors = report.nothing.shadow
    if floors is not None:
        spots = [floors.klom[split] for split in SPLITS]
        table.add_row("ideal", "0.500", "", *(_pair(spot, "floor_") for spot in spots), "")
    for audited in (report.nothing, *report.methods):
        shadow = audited.shadow
        if shadow is None:
            table.add_row(audited.name, *[MISSING] * 5, audited.reason or "")
            continue
        accuracy = MISSING if shadow.u_lira is None else f"{shadow.u_lira.accuracy:.3f}"
        ends = () if shadow.u_lira is None else shadow.u_lira.interval
        interval = "[{:.3f}, {:.3f}]".format(*ends) if ends and None not in ends else MISSING
        spots = [shadow.klom[split] for split in SPLITS]
        table.add_row(
            audited.name,
            accuracy,
            interval,
            *(_pair(spot) for spot in spots),
            (audited.verdicts or {}).get("u_lira", ""),
        )
    return table


def _pair(found: Klom | None, prefix: str = "") -> str:
    if found is None:
        return MISSING
    return f"{getattr(found, prefix + 'median'):.2f} / {getattr(found, prefix + 'p95'):.2f}"


def method_table(report: AuditReport, audited: Audited) -> Table:
    """Return a table of every figure of one method: its 95 % t interval, what stands beside it, the verdict."""
    table = _table(
        f"{audited.name}, {report.config.pairs} pairs",
        "mean ± half-width of the 95 % t interval over pairs",
        ("", "do nothing", audited.name, "2nd reference", "ideal", "verdict"),
    )
    last = FIGURES[0].group
    for figure in FIGURES:
        if figure.group != last:
            table.add_section()
            last = figure.group
        cells = [
            _cell(figure, (one.pairs or {}).get(figure.key, [])) for one in (report.nothing, audited, report.reference)
        ]
        table.add_row(figure.title, *cells, figure.ideal, (audited.verdicts or {}).get(figure.key, ""))
    return table


def _cell(figure: AuditFigure, values: Sequence[float | None]) -> str:
    found = summary([value for value in values if value is not None])
    if found is None:
        return MISSING
    spread = "" if found.half_width is None else f" ± {figure.form.format(found.half_width)}"
    return figure.form.format(found.mean) + spread
