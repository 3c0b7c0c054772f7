"""Training: one LightningModule an objective."""
