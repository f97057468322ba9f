"""Checks that find silent mistakes before they cost a run."""
