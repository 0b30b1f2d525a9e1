"""All that a CPU can find out about a model before a GPU is taken, and the model made ready for every build."""
