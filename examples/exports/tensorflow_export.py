"""A Keras MobileNetV2 (random weights) as ONNX with a dynamic batch.

Usage: python tensorflow_export.py OUTPUT.onnx
Needs: tensorflow, tf2onnx, onnx (docs/exports/tensorflow.md has the versions that were tried).
"""

import sys

import tensorflow as tf
import tf2onnx


def main(output: str) -> None:
    """Export a function with a fixed signature, so that names and the open dimension are ours."""
    tf.keras.utils.set_random_seed(0)
    # Logits: untrained, the softmax would answer 0.01 for every class, and a comparison of that proves nothing.
    model = tf.keras.applications.MobileNetV2(
        weights=None, input_shape=(224, 224, 3), classes=100, classifier_activation=None
    )

    @tf.function(input_signature=[tf.TensorSpec([None, 224, 224, 3], tf.float32, name="images")])
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": model(images, training=False)}

    # TensorRT computes NCHW: the converter moves the transposes to the edge of the graph.
    tf2onnx.convert.from_function(
        serve,
        input_signature=serve.input_signature,
        opset=17,
        inputs_as_nchw=["images"],
        output_path=output,
    )


if __name__ == "__main__":
    main(sys.argv[1])
