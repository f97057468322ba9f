"""Small experiments on learning itself, each with a picture."""
