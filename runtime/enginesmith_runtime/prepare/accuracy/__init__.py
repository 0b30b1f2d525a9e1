"""How far the answers of a prepared model are from those of the FP32 model, on samples: `enginesmith accuracy`."""
