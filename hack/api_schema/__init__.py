"""Generates the CRDs and the reference pages from the types. Code that runs in a cluster does not import it."""
