"""The mind: observations in, action distributions and values out."""
