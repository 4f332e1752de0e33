"""The readers of weights, one file for each family of formats. None of them runs anything that a file holds."""
