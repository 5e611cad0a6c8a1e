"""The forms of a receipt: an in-toto Statement by its specification, a section of a model card."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from unlearn_kit.evidence.card import card_section, write_card
from unlearn_kit.evidence.claims import CLAIMS, untested
from unlearn_kit.evidence.signing import broken_signature, sign
from unlearn_kit.evidence.statement import statement
from unlearn_kit.evidence.verify import verify

# Written from the public specification: in-toto/attestation, spec/v1/statement.md, spec/v1/resource_descriptor.md,
# spec/v1/digest_set.md and spec/predicates/test-result.md (v0.1).
DESCRIPTOR: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "uri": {"type": "string"},
        "digest": {
            "type": "object",
            "minProperties": 1,
            "properties": {"sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}},
            "additionalProperties": {"type": "string"},
        },
        "content": {"type": "string", "contentEncoding": "base64"},
        "downloadLocation": {"type": "string"},
        "mediaType": {"type": "string"},
        "annotations": {"type": "object"},
    },
    "anyOf": [{"required": ["uri"]}, {"required": ["digest"]}, {"required": ["content"]}],
}
TESTS = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["_type", "subject", "predicateType", "predicate"],
    "properties": {
        "_type": {"const": "https://in-toto.io/Statement/v1"},
        "subject": {"type": "array", "minItems": 1, "items": {"allOf": [DESCRIPTOR, {"required": ["digest"]}]}},
        "predicateType": {"const": "https://in-toto.io/attestation/test-result/v0.1"},
        "predicate": {
            "type": "object",
            "required": ["result", "configuration"],
            "properties": {
                "result": {"enum": ["PASSED", "WARNED", "FAILED"]},
                "configuration": {"type": "array", "items": DESCRIPTOR},
                "url": {"type": "string"},
                "passedTests": TESTS,
                "warnedTests": TESTS,
                "failedTests": TESTS,
            },
        },
    },
}
SHA = "ab" * 32


def values(*verdicts: str) -> dict[str, Any]:
    found = [untested(name, "why").as_dict() | {"value": value} for name, value in zip(CLAIMS, verdicts, strict=False)]
    return {
        "asked": {"by": "Clinic North"},
        "request": {"rules": ["class 3"], "samples": 1200},
        "made": "2026-02-03",
        "method": {"name": "finetune"},
        "verdicts": found,
        "findings": ["kept: not shown: damage"],
        "limit": "A receipt tells what was done.",
    }


@pytest.mark.parametrize(
    ("verdicts", "result"),
    [
        (("shown", "shown"), "PASSED"),
        (("shown", "not tested"), "WARNED"),
        (("shown", "not shown", "not tested"), "FAILED"),
        (("not tested",), "WARNED"),
        ((), "WARNED"),
    ],
)
def test_a_statement_is_one_by_its_specification(verdicts: tuple[str, ...], result: str) -> None:
    told = statement(values(*verdicts), {"served.pth": SHA}, {"receipt.json": SHA, "index.html": SHA})
    Draft202012Validator.check_schema(SCHEMA)
    Draft202012Validator(SCHEMA).validate(told)
    predicate = told["predicate"]
    assert predicate["result"] == result
    names = dict(zip(CLAIMS, verdicts, strict=False))
    assert predicate["passedTests"] == [name for name, value in names.items() if value == "shown"]
    assert predicate["failedTests"] == [name for name, value in names.items() if value == "not shown"]
    # What was not tested is no test that passed with a warning.
    assert predicate["warnedTests"] == []
    (receipt,) = [one for one in predicate["configuration"] if one["name"] == "receipt.json"]
    assert receipt["annotations"]["notTested"] == [name for name, value in names.items() if value == "not tested"]


def test_a_statement_is_about_something() -> None:
    with pytest.raises(ValueError, match="expected subjects to name a file of the revised model, but got none"):
        statement(values("shown"), {}, {})


def test_a_card_keeps_what_it_says_and_holds_one_section(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    path = tmp_path / "README.md"
    path.write_text("---\nlicense: mit\ntags:\n- vision\n---\n\n# Nodules\n\nIntended use.\n")
    write_card(values("shown", "not shown"), path)
    write_card(values("shown", "shown"), path)
    card = ModelCard.load(path)
    assert (card.data.license, card.data.tags) == ("mit", ["vision"])
    assert card.text.count("## Unlearning") == 1
    assert card.text.strip().startswith("# Nodules\n\nIntended use.")
    assert card_section(values("shown", "shown")) in card.text
    assert "| not shown |" not in card.text
    with path.open("a") as file:
        file.write("\n## Contact\n")
    write_card(values("shown"), path)
    assert [line for line in path.read_text().splitlines() if line.startswith("#")] == [
        "# Nodules",
        "## Unlearning",
        "## Contact",
    ]
    new = write_card(values("shown"), tmp_path / "CARD.md")
    assert ModelCard.load(new).data.tags == ["machine-unlearning"]


def test_a_signature_is_that_package_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key.pem").write_text("key")
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(ImportError, match=r"pip install 'unlearn-kit\[sign\]'"):
        sign(tmp_path, tmp_path / "key.pem")
    with pytest.raises(FileNotFoundError, match="expected key to be an existing path"):
        sign(tmp_path, tmp_path / "none.pem")
    assert broken_signature(tmp_path, tmp_path / "key.pem") == "no model.sig"


def test_a_signed_folder_holds_until_a_byte_changes(tmp_path: Path) -> None:
    pytest.importorskip("model_signing.signing", exc_type=ImportError)
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(private)
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.pem").write_bytes(public)
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "served.pth").write_bytes(b"weights")
    for _ in range(2):  # signed again, it does not sign its old signature
        assert sign(folder, tmp_path / "key.pem") == folder / "model.sig"
        assert broken_signature(folder, tmp_path / "public.pem") is None
    (folder / "served.pth").write_bytes(b"weightz")
    assert "served.pth" in str(broken_signature(folder, tmp_path / "public.pem"))


def test_a_receipt_without_a_folder_is_not_verified(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected a folder with a receipt\.json"):
        verify(tmp_path)
    for text, message in (
        ("{", "but it is no JSON"),
        ("[]", "a receipt of format 2, but got 'list'"),
        ('{"format": 1}', "a receipt of format 2, but got 1"),
        ('{"format": 2}', r"has one without \['checkpoints', 'data', 'files'\]"),
    ):
        (tmp_path / "receipt.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            verify(tmp_path)
