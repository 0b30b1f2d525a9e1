"""The control plane: the kinds that users write (`api`) and the decision what to build and serve where (`planning`)."""
