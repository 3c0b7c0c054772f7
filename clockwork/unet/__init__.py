"""The UNet as a chain of layers, the cut that splits it, and the inputs of a UNet call."""
