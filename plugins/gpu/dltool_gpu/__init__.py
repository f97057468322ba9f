"""What the GPUs and the CPU of this machine are and can do."""
