#!/usr/bin/env bash
# Train on handwritten digits, look at the result, use the model, and move it elsewhere.
#   bash examples/cnn.sh          in the root of the source tree, with dltool on the PATH
set -euo pipefail
pictures="$(cd "$(dirname "$0")" && pwd)/digits"

dltool cnn train --out runs/cnn/digits

# How good is it, class by class?
dltool cnn evaluate runs/cnn/digits

# What is on these pictures?
dltool cnn predict runs/cnn/digits "$pictures" --top 2 --grid predictions.png

# Only the model folder is needed to use the model.
cp -r runs/cnn/digits/model my-model
dltool cnn predict my-model "$pictures/3" --json

# A simpler network, to compare.
dltool cnn train --model linear --epochs 10 --out runs/cnn/linear
dltool runs list

# Pictures of one's own: one subfolder a class.
dltool cnn train --data "$pictures" --epochs 2 --val-fraction 0.25 --test-fraction 0.25 \
    --out runs/cnn/own || echo "twenty pictures are too few to split in three: that is said"
