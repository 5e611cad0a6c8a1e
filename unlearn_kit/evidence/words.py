"""A receipt for people, in Markdown, under the headings of a predetermined change control plan.

Headings: description of modifications, modification protocol, impact assessment (FDA, guidance on predetermined change
control plans for AI-enabled device software functions, 2024).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..display import counted, html_table, tally

SCORES = {
    "forget": "training data to forget",
    "retain": "training data to keep",
    "forget_test": "held-out data like the forgotten",
    "retain_test": "held-out data like the kept",
    "membership": "membership AUC by loss",
}
LIMIT = "A receipt tells what was done and measured. It does not prove that nothing of the data is left in the model."

CHANGES = (
    "images",
    "sensitivity before",
    "after",
    "false negatives before",
    "after",
    "specificity before",
    "after",
    "p (Holm)",
)
WHO = ("before", "after", "reference")
FINDINGS = ("finding", "present", "absent", *(f"{what} {who}" for what in ("AUROC", "sensitivity") for who in WHO))


def markdown(values: Mapping[str, Any]) -> str:
    """Return a receipt's values as Markdown."""
    lines = ["# Unlearning receipt", "", f"Made {values['made']}. {LIMIT}", ""]
    for part in (_verdicts, _modifications, _protocol, _impact):
        lines += [*part(values), ""]
    return "\n".join(lines)


def figure(estimate: Mapping[str, Any] | None) -> str:
    """Return a figure and its interval as text."""
    if estimate is None:
        return "n/a"
    if estimate["low"] == estimate["high"] == estimate["value"]:
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def score(scores: Mapping[str, Any] | None, name: str) -> str:
    """Return one score of an evaluation as text. More digits than three would claim what no test set can tell."""
    return "n/a" if scores is None or scores[name] is None else f"{scores[name]:.3f}"


def verdicts_text(v: Mapping[str, Any]) -> str:
    """Return verdicts and findings in a line; each verdict that is not shown by its name."""
    not_shown = [one["name"] for one in v["verdicts"] if one["value"] == "not shown"]
    parts = [tally(one["value"] for one in v["verdicts"]) or "no verdicts"]
    parts += [f"not shown: {', '.join(not_shown)}"] if not_shown else []
    parts += [counted(len(v["findings"]), "finding")] if v["findings"] else []
    return "; ".join(parts)


def verdicts_html(title: str, v: Mapping[str, Any], before: Sequence[tuple[str, Any]] = ()) -> str:
    """Return verdicts as a table for a notebook, after the rows ``before``; findings are under it."""
    rows = [(one["name"], one["value"], figure(one["figure"]), one["words"]) for one in v["verdicts"]]
    told = [(name, value, "", "") for name, value in before]
    return html_table(title, [*told, *rows], ("", "verdict", "figure", "why"), v["findings"])


def _verdicts(v: Mapping[str, Any]) -> Iterator[str]:
    if v["verdicts"]:
        yield from (
            "## Verdicts",
            "",
            "| verdict | claim | figure | before | threshold | why |",
            "|---|---|---|---|---|---|",
        )
        for one in v["verdicts"]:
            limit = "n/a" if one["threshold"] is None else f"{one['threshold']:.3f}"
            cells = (
                f"**{one['value']}**",
                one["claim"],
                figure(one["figure"]),
                figure(one["before"]),
                limit,
                one["words"],
            )
            yield f"| {' | '.join(cells)} |"
        yield ""
    yield from ("## Findings", "")
    yield from [f"- {finding}" for finding in v["findings"]] or ["None."]


def _modifications(v: Mapping[str, Any]) -> Iterator[str]:
    request, data = v["request"], v["data"]
    yield from ("## Description of modifications", "")
    yield (
        f"Forget **{'; then '.join(request['rules'])}**: {request['samples']:,} training samples. "
        f"SHA-256 over the sorted hashes of the samples: `{request['digest']}`."
    )
    yield ""
    yield f"- Request: {_pairs(v['asked']) or 'nothing was said of who asked, ticket, basis or date'}"
    if data is not None:
        for side in ("forget", "retain"):
            own = data[side]
            files = "no files" if own["files"] is None else f"{own['files']:,} files, `{own['files_digest']}`"
            yield f"- {side.capitalize()} list: {own['samples']:,} samples, `{own['digest']}`; {files}"
        both = data["on_both_sides"]
        kept_out = {None: "one class of the masks goes, its images stay", 0: "yes"}.get(
            both, f"no: {both} samples of it are in both lists"
        )
        yield f"- Forget list kept out of the retain list: {kept_out}"
        if data["groups"] is not None:
            yield f"- Groups in the forget list: {data['groups']:,}"
    models = v["models"]
    yield f"- Model before: `{models['before']}`"
    yield f"- Model after: `{models['after'] or 'none'}`"
    yield f"- Reference, retrained without the data: `{models['reference'] or 'none'}`"
    for when, files in v.get("checkpoints", {}).items():
        yield from (f"- Checkpoint {when}: {name}, SHA-256 `{digest}`" for name, digest in files.items())
    yield from (f"- Look at this: {text}" for text in v.get("deployed", {}).get("warnings", ()))
    for one in v["earlier"]:
        yield f"- Stands on the receipt {one['name']}, SHA-256 `{one['sha256']}`"


def _protocol(v: Mapping[str, Any]) -> Iterator[str]:
    method = v["method"]
    options = ", ".join(f"{key}={value}" for key, value in method["options"].items() if value is not None)
    yield from ("## Modification protocol", "")
    yield f"- Method: `{method['name']}` ({options or 'no options'}); SHA-256 of name and options `{method['digest']}`"
    yield f"- Status: {v['status']}" + ("" if v["reason"] is None else f": {v['reason']}")
    yield f"- Time: {method['seconds']:.1f} s; seeds: {_pairs(v['seeds'])}"
    yield f"- Software: {_pairs(v['software'])}; SHA-256 of the code `{v['code']}`"
    for name, limit in v["settings"].get("thresholds", {}).items():
        yield f"- Threshold `{name}`: {limit['value']:g}, {limit['origin']}"


def _impact(v: Mapping[str, Any]) -> Iterator[str]:
    metrics = v["metrics"]
    yield from (
        "## Impact assessment",
        "",
        "| measured on | before | after | reference (the ideal) |",
        "|---|---|---|---|",
    )
    for name, words in SCORES.items():
        yield f"| {words} | {' | '.join(score(metrics[who], name) for who in WHO)} |"
    for title, rows in (("class", v["classes"]), ("group", v["groups"])):
        if rows:
            yield from ("", f"Held-out data to keep, by {title}:", "")
            yield f"| {title} | {' | '.join(CHANGES)} |"
            yield "|---" * (1 + len(CHANGES)) + "|"
            yield from (f"| {' | '.join(change_cells(row))} |" for row in rows)
    rows = finding_rows(metrics, v.get("names"))
    if rows:
        yield from ("", "Held-out data, by finding:", "", f"| {' | '.join(FINDINGS)} |", "|---" * len(FINDINGS) + "|")
        yield from (f"| {' | '.join(map(str, row))} |" for row in rows)
    if v["figures"]:
        yield ""
        yield from (f"- {name}: {told(value)}" for name, value in v["figures"].items())
    yield from ("", "What is not covered:", "", *(f"- {text}" for text in v["not_measured"]))


def change_cells(row: Mapping[str, Any]) -> list[str]:
    """Return the cells of a class or group: n/a where something is not defined for it."""
    places = ("before", "after", "missed_before", "missed_after", "specificity_before", "specificity_after")
    cells = (
        "n/a" if row[key] is None else f"{row[key]:,}" if isinstance(row[key], int) else f"{row[key]:.3f}"
        for key in places
    )
    p = row["p_value"]
    return [str(row["name"]), f"{row['count']:,}", *cells, "< .001" if p < 0.001 else f"{p:.3f}"]


def finding_rows(metrics: Mapping[str, Any], names: Sequence[str] | None) -> list[tuple[Any, ...]]:
    """Return a row for each finding of the held-out data: its name, how often it is there, and what models score.

    Args:
        metrics: Evaluations as a receipt holds them, by who was evaluated.
        names: A name for each finding; None for their numbers.

    Returns:
        The name, in how many images it is present and absent, and the AUROC and the sensitivity of each model in the
        order of ``WHO``; an empty list of other kinds of tasks.
    """
    tables = [None if metrics[who] is None else metrics[who].get("findings") for who in WHO]
    known: Mapping[str, Any] = next((table for table in tables if table is not None), {})
    rows = []
    for k, own in known.items():
        name = f"finding {k}" if names is None else names[int(k)]
        cells = [score(None if t is None else t[k], what) for what in ("auroc", "sensitivity") for t in tables]
        rows.append((name, own["present"], own["absent"], *cells))
    return rows


def told(value: Any) -> str:
    """Return a figure that is not judged, or several by name, as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {told(one)}" for key, one in value.items())
    return f"{value:.3f}" if isinstance(value, float) else "n/a" if value is None else str(value)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
