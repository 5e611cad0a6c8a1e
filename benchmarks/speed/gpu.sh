#!/bin/sh
# What only a GPU can show, in at most eight minutes: benchmarks/speed/gpu.sh [FOLDER]
# Tests marked gpu, then seconds, memory and bits of the headline recipes on ResNet-18, random images of CIFAR's size.
set -eu
out=${1:-out/gpu}
python=${PYTHON:-python}
mkdir -p "$out"
"$python" -c 'import torch; print(torch.__version__, torch.cuda.get_device_name())' | tee "$out/machine.txt"
timeout 150 "$python" -m pytest -m gpu tests/devices 2>&1 | tee "$out/tests.txt" || echo "tests: see $out/tests.txt"
timeout 300 "$python" -m benchmarks.speed gpu --out "$out/gpu.json" 2>&1 | tee "$out/table.txt"
