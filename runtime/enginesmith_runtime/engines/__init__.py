"""The backends: everything that knows one inference library, behind one interface (see `interface`)."""
