"""The receipt of a finished node."""

from __future__ import annotations

from unlearn_kit.evidence.receipt import Receipt, assemble
from unlearn_kit.metrics import Evaluation

from .records import Record


def receipt_of(record: Record, original: Evaluation | None, reference: Evaluation | None) -> Receipt:
    """Return the receipt of a result, from what is known of it.

    Args:
        record: The result's.
        original: The evaluation of the model before, under the record's first evaluation seed.
        reference: The same of the reference.

    Raises:
        ValueError: On the record of a node that forgets nothing.
    """
    hashes, count = record.hashes, record.forget_samples
    digest = hashes.get("forget")
    if digest is None or count is None:
        raise ValueError(f"expected the record of a result, but got that of {record.name!r}: {record.kind}")
    method = record.config["method"]
    return assemble(
        rules=list(record.config["forget"]),
        digest=digest,
        count=count,
        hashes=None,
        method={
            "name": method["name"],
            "options": record.options or method["options"],
            "seconds": record.cost.seconds,
        },
        status=(record.status, record.reason),
        seeds=record.config["seeds"],
        models={"before": hashes["before"], "after": hashes.get("model"), "reference": hashes.get("reference")},
        software=record.versions,
        evaluations={
            "before": original,
            "after": record.evaluations[0].evaluation if record.evaluations else None,
            "reference": reference,
        },
    )
