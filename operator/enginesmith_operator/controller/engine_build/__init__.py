"""One pass over an EngineBuild: gather, decide, act, status."""
