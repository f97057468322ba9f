"""Fine-tune pretrained text encoders on labelled texts."""
