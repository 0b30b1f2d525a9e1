"""One pass over an InferenceEngine: gather, decide, act, status."""
