"""Engine stores: blobs by content, pointers by input (layout: `enginesmith_contract.store_layout`)."""
