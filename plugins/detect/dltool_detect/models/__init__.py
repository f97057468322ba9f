"""Detectors: readable ones of our own, and torchvision's, behind one class."""
