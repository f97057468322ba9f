#!/usr/bin/env bash
# From a file of labelled texts to a model folder for transformers.pipeline, without a network.
set -euo pipefail

# a file of labelled texts; two columns are enough
{
    echo "text,label"
    for place in room bed soup tea view garden waiter music film story; do
        for word in good lovely fresh; do
            echo "the $place was $word,praise"
            echo "the $place was not $word,complaint"
            echo "we found the $place very $word,praise"
            echo "nobody found the $place $word,complaint"
        done
    done
} > reviews.csv

# with a pretrained encoder: add --model FOLDER; without one a small BERT learns from these texts alone
dltool bert-finetune train --data reviews.csv --epochs 20 --batch-size 8 --out run
dltool bert-finetune evaluate run
dltool bert-finetune predict run "the soup was not fresh" "we found the bed very good"
dltool bert-finetune export run --out served

# another program's view of the result
ls served
