"""A receipt as an in-toto Statement with the test-result predicate: plain JSON that supply-chain tools read and sign.

Specification: https://github.com/in-toto/attestation, Statement v1 and test-result v0.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..arguments import checked

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"


def check_values(values: Mapping[str, Any]) -> None:
    """Refuse values that are not a receipt's.

    Raises:
        ValueError: When they are of another format, or parts are missing.
    """
    missing = [part for part in ("request", "method", "verdicts", "findings", "limit") if part not in values]
    if missing:
        raise ValueError(f"expected values to be those of a receipt, but they lack {missing}")


@checked
def statement(values: Mapping[str, Any], subjects: Mapping[str, str], evidence: Mapping[str, str]) -> dict[str, Any]:
    """Return the Statement of a receipt.

    A claim that was shown is a passed test, one that was not shown a failed test. What was not tested is no test, and
    stands in the annotations of the receipt; with it the result is at best WARNED.

    Args:
        values: Of the receipt.
        subjects: SHA-256 of the files of the revised model, by name: what the statement is about.
        evidence: SHA-256 of the files that say how it was tested, ``receipt.json`` among them.

    Raises:
        ValueError: When there is nothing that it is about, or the values are no receipt's.
    """
    check_values(values)
    if not subjects:
        raise ValueError("expected subjects to name a file of the revised model, but got none")
    by_value: dict[str, list[str]] = {"shown": [], "not shown": [], "not tested": []}
    for verdict in values["verdicts"]:
        by_value[verdict["value"]].append(verdict["name"])
    failed, untested = by_value["not shown"], by_value["not tested"]
    result = "FAILED" if failed else "WARNED" if untested or not by_value["shown"] else "PASSED"
    configuration: list[dict[str, Any]] = [
        {"name": name, "digest": {"sha256": digest}} for name, digest in sorted(evidence.items())
    ]
    for one in configuration:
        if one["name"] == "receipt.json":
            one |= {"mediaType": "application/json", "annotations": {"notTested": untested, "limit": values["limit"]}}
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(subjects.items())],
        "predicateType": PREDICATE,
        "predicate": {
            "result": result,
            "configuration": configuration,
            "passedTests": by_value["shown"],
            "warnedTests": [],
            "failedTests": failed,
        },
    }
