"""Common code of all processes in pods: requests, stop signals and termination messages."""
