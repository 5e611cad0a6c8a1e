"""What is made on the wrong device fails here, on a machine without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

import algorithms


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this version of torch has no backends in Python",
)
def test_nothing_is_made_on_another_device_than_the_one_asked_for() -> None:
    script = Path(__file__).with_name("cases.py")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr[-2000:]
    came = dict(json.loads(line) for line in ended.stdout.splitlines())
    # The check can fire: two mistakes that are made on purpose.
    assert came.pop("planted tensor").endswith("on the same device, but aten::add got some in memory")
    assert came.pop("planted generator").endswith("a generator of the device, but aten::rand got another")
    assert {name: error for name, error in came.items() if error is not None} == {}
    assert {f"{name} class" for name in algorithms.__all__} <= came.keys()
