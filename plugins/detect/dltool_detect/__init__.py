"""Find objects in images; importing this package loads nothing heavy."""
