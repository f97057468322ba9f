"""The networks of the `cnn` topic, by family."""
