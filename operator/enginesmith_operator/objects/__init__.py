"""One file for each kind of object: typed values in, the object to apply out. Nothing here touches a cluster."""
