"""Casts a model to FP16 and decides which nodes stay in FP32. `cast.py` has a table of the reasons."""
