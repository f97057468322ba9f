#!/usr/bin/env bash
# Word vectors from a text: train, ask, score, draw, hand on.
#   bash examples/word2vec.sh          anywhere, with dltool on the PATH; no network is needed
set -euo pipefail

# 300 news articles that come with gensim; one thread, so that it repeats bit for bit.
dltool word2vec train --workers 1 --epochs 10 --out news

dltool word2vec similar news fire --top 5
dltool word2vec analogy news israeli - israel + afghanistan --top 3
dltool word2vec text-similar news "fire crews in sydney" "bush fires burn" "israel attacks"

# 58,000 words are few: look at n and at the interval.
dltool word2vec evaluate news

# A picture, and a page to zoom into.
dltool word2vec plot news fire israel cricket --out words.png
dltool word2vec plot news --out words.html

# For other programs, and a quarter of the size.
dltool word2vec export news news.txt --format word2vec
dltool word2vec quantize news news-int8

# More text into the same vectors; a misspelt word is told so.
printf 'fire crews fight the fires near sydney\n%.0s' {1..20} > more.txt
dltool word2vec train more.txt --start-from news --epochs 2 --workers 1 --out more
dltool word2vec similar more firre || echo "an unknown word: the nearest spellings are named"
