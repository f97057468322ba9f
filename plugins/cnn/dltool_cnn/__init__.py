"""The `cnn` topic: image classification."""
