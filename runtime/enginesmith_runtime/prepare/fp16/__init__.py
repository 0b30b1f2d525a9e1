"""A model in FP16, and which of its nodes stay in FP32: `cast.py` has a table of the reasons."""
