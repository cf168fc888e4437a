"""What every other package uses: registries, checks of values, files that are written whole, and tensors read safely."""
