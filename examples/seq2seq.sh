#!/usr/bin/env bash
# Learn pairs of one's own, use the model on a stream, and measure it.
#   bash examples/seq2seq.sh          in any folder, with dltool on the PATH
set -euo pipefail

# A table of pairs, here without a header: a sentence, a tab, its translation.
printf 'the %s sleeps\tle %s dort\n' cat chat dog chien bird merle fish poisson > pairs.tsv
printf 'the %s eats\tle %s mange\n' cat chat dog chien bird merle fish poisson >> pairs.tsv

dltool seq2seq train --task pairs.tsv --level word --min-freq 1 --width 32 --epochs 30 \
    --lr 0.01 --val-fraction 0 --test-fraction 0 --out runs/seq2seq/own
printf 'the dog sleeps\nthe bird eats\n' | dltool seq2seq translate runs/seq2seq/own -

# Where does the decoder look?
dltool seq2seq attention runs/seq2seq/own "the dog sleeps" --out attention.png

# Sums instead take some minutes, and no data:
#   dltool seq2seq train
#   dltool seq2seq translate latest 123+456
