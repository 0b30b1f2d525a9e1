"""The backends: the code for each inference library, behind one interface (see `interface`)."""
