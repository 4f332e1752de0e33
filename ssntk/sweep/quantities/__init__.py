"""What is recorded of every point: one file a quantity, which declares its variables once."""
