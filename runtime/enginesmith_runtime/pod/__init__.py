"""What every process in a pod does alike: it reads its request, hears the pod's end, and leaves a last word."""
