#!/usr/bin/env bash
# What this machine is, for people and for scripts.
#   bash examples/gpu.sh
set -euo pipefail

dltool gpu info
dltool gpu info --json
dltool doctor || echo "doctor found something; its cure stands beside it"

# In a job script: go on only where a GPU with enough free memory is.
if dltool gpu info --require 1 --min-free 8GiB > /dev/null 2>&1; then
    echo "a GPU is ready"
else
    echo "no GPU with 8 GiB free"
fi

# Which batch fits, and what would save memory? No GPU is needed to know.
dltool gpu budget resnet18 --batch 64 --device-memory 8GiB

# Before long trainings (each takes a minute; see plugins/gpu/README.md):
#   dltool gpu test      does every device learn the same?
#   dltool gpu bench     is it as fast as it should be?
#   dltool gpu burn      does it stay fast, cool and right at full load?
