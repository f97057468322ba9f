"""The `mlp-xor` topic: small networks on points in the plane."""
