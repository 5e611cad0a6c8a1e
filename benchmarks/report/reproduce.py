"""How a row can be had again: a suite of this row alone, and the command that runs it."""

from __future__ import annotations

import shlex
from typing import Any

from ..suites.records import is_trained
from .rows import ReportRow
from .tasks import ReportTask


def suite_of(task: ReportTask, row: ReportRow) -> dict[str, Any]:
    """Return the suite that plans the very runs of a row; those of original and references come with every suite."""
    config = row.runs[0].record.config
    seeds = [run.seeds for run in row.runs]
    method = config["method"]
    bare = is_trained(method["name"])
    others = [role for role in row.runs[0].record.needs if role.startswith("reference ")]
    several = {"references": max(int(role.split()[1]) for role in others)} if others else {}
    return {
        "name": "again",
        "seeds": {
            "training": sorted({training for training, _ in seeds}),
            "unlearning": sorted({unlearning for _, unlearning in seeds if unlearning is not None}) or [0],
            "evaluation": list(config["seeds"]["evaluation"]),
        },
        "device": config["device"],
        "learning_curve": config.get("learning_curve", False),
        **several,
        "matrix": [
            {
                "data": {"name": task.data, "options": dict(config["data"]["options"])},
                "forget": [list(config["forget"])],
                "models": [config["model"]],
                "training": dict(config["training"]),
                # A suite needs a method; the cheapest stands for none.
                "methods": [
                    {"name": "finetune", "options": {"epochs": 1}}
                    if bare
                    else {"name": method["name"], "options": dict(method["options"])}
                ],
            }
        ],
    }


def suite_text(suite: dict[str, Any]) -> str:
    """Return the suite as YAML."""
    import yaml

    # The same text from libyaml, where there is one, in a tenth of the time.
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "width": 100, "default_flow_style": None}
    return str(yaml.dump(suite, Dumper=dumper, **options))


def command(row: ReportRow, file: str = "again.yaml") -> str:
    """Return what is typed, with the suite saved as ``file``."""
    only = f" --only {shlex.quote(f'/{row.text}')}" if is_trained(row.method) else ""
    return f"unlearn-kit run {file} --out out/again{only}"
