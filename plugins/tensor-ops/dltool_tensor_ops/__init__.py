"""The `tensor-ops` topic: short demos of tensors, gradients, masks, formats and memory."""
