"""What every process in a pod does: it reads its request, receives the stop signal, writes a termination message."""
