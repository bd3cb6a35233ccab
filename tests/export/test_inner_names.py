"""Names inside .tflite files: gone, but for those that are asked for, and nothing else with them."""

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from lim_keras.export.graph_edits import without_names


class Network(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((1, None, None, 3), name="image")], autograph=False)
    def run(self, image):
        with tf.name_scope("a_scope_that_is_named_at_length"):
            kernel = tf.constant(np.random.default_rng(0).normal(size=(3, 3, 3, 2)).astype("f4"))
            return {"sum": tf.nn.relu(tf.nn.conv2d(image, kernel, 1, "SAME")) + 1}


def test_inner_names_go_and_the_numbers_stay(tmp_path):
    network = Network()
    tf.saved_model.save(network, str(tmp_path), signatures={"serving_default": network.run})
    named = bytes(tf.lite.TFLiteConverter.from_saved_model(str(tmp_path)).convert())
    nameless = without_names(named)
    assert b"a_scope" in named and b"a_scope" not in nameless and len(nameless) < len(named)
    before, after = Interpreter(model_content=named), Interpreter(model_content=nameless)
    for ends in ("get_input_details", "get_output_details"):
        assert [one["name"] for one in getattr(after, ends)()] == [one["name"] for one in getattr(before, ends)()]
    image = np.random.default_rng(1).normal(size=(1, 9, 11, 3)).astype("f4")
    answers = [one.get_signature_runner()(image=image)["sum"] for one in (before, after)]
    np.testing.assert_array_equal(answers[1], answers[0])
