"""A signature over the whole folder of a revision, by the package ``model-signing``: no cryptography of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import check_path_exists

SIGNATURE = "model.sig"
HOW = "expected model-signing for signatures, but it is not installed: pip install 'unlearn-kit[sign]'"


def sign(folder: str | Path, key: str | Path) -> Path:
    """Sign every file of a folder with a private elliptic-curve key, and return the signature's path.

    Args:
        folder: Of a revision.
        key: The private key, in PEM form.

    Raises:
        ImportError: When model-signing is not installed.
        FileNotFoundError: When there is no such folder or key.
        ValueError: When the key is none.
    """
    target = check_path_exists("folder", folder) / SIGNATURE
    check_path_exists("key", key)
    # The signature lies in the folder that it signs, and does not sign itself.
    hashed = _config("hashing").set_ignored_paths(paths=[target], ignore_git_paths=False)
    signing = _config("signing").set_hashing_config(hashed)
    signing.use_elliptic_key_signer(private_key=Path(key)).sign(Path(folder), target)
    return target


def broken_signature(folder: str | Path, public_key: str | Path) -> str | None:
    """Return why the signature of a folder does not hold; None where it holds.

    Raises:
        ImportError: When model-signing is not installed.
        FileNotFoundError: When there is no such folder or key.
    """
    target = check_path_exists("folder", folder) / SIGNATURE
    check_path_exists("public_key", public_key)
    if not target.is_file():
        return f"no {SIGNATURE}"
    try:
        _config("verifying").use_elliptic_key_verifier(public_key=Path(public_key)).verify(Path(folder), target)
    except Exception as error:  # that package and the ones below raise many kinds, each of which is a broken signature
        return str(error) or type(error).__name__
    return None


def _config(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"model_signing.{module}").Config()
    except ImportError as error:
        raise ImportError(HOW) from error
