#!/usr/bin/env bash
# Boxes from a data set to a detector and back, without a network, on made-up shapes.
#   bash examples/detect.sh
set -euo pipefail

# a data set as people have them: pictures and an XML file for each
dltool detect convert shapes --to voc --out shapes-voc
dltool detect data shapes-voc --page shapes.png

# a few passes are enough to see the loop work; 40 or more find most of the shapes
dltool detect train --data shapes-voc --image-size 96 --augment flip --epochs 3 --out shapes-run
dltool detect evaluate shapes-run

# use it: annotated pictures, what the boxes hold, and results for other programs
dltool detect shapes-voc/JPEGImages/000*.png --model shapes-run --min-score 0.05 --out found --json > found.json
