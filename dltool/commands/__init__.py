"""The commands of the core itself."""
