"""Train a classifier of scikit-learn's labelled digits; writes its weights and the pictures as an .npz to stdout.

It runs in the environment of `hack/venv digits`. One half of the 1,797 pictures trains, the other half is judged.
"""

import io
import sys

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

_BRIGHTEST = 16.0


def main() -> None:
    """Train, write."""
    pictures, labels = load_digits(return_X_y=True)
    pictures = (pictures / _BRIGHTEST).astype(np.float32)
    trained, judged, trained_labels, judged_labels = train_test_split(
        pictures, labels, test_size=0.5, random_state=0, stratify=labels
    )
    classifier = MLPClassifier(hidden_layer_sizes=(512, 256), tol=1e-3, n_iter_no_change=5, random_state=0)
    classifier.fit(trained, trained_labels)
    arrays = {"trained": trained, "trained_labels": trained_labels, "judged": judged, "judged_labels": judged_labels}
    for number, (weights, bias) in enumerate(zip(classifier.coefs_, classifier.intercepts_, strict=True)):
        arrays |= {f"weights{number}": weights.astype(np.float32), f"bias{number}": bias.astype(np.float32)}
    written = io.BytesIO()
    np.savez(written, **arrays)
    sys.stdout.buffer.write(written.getvalue())


if __name__ == "__main__":
    main()
