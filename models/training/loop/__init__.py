"""What every stage shares: the training loop, its state, the optimizer, precision, processes."""
