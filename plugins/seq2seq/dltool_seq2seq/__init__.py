"""The `seq2seq` topic: from arithmetic to translation."""
