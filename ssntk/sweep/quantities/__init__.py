"""The quantities that a sweep records at every point. Each has one file, which declares its variables."""
