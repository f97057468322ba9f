"""The `word2vec` topic: word vectors from your own text."""
