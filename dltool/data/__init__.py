"""Named data sets, downloads, readers and batches."""
