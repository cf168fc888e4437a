"""A small rendered world in five weathers, and a ViT pre-trained on it."""
