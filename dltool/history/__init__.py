"""Look back at runs of every topic: find, choose, compare, draw and report them, without torch."""
