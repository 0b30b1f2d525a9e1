"""`kubectl enginesmith`: what a cluster's engines do and why, read with kubectl's own connection."""
