"""Compares the outputs of a prepared model and the FP32 model on samples, for `enginesmith accuracy`."""
