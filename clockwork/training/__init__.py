"""Training of adaptors and UNets with PyTorch Lightning: one LightningModule per objective, one data module for all."""
