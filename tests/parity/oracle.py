"""Run by the oracle's own Python, `python oracle.py INPUTS.npz OUTPUTS.npz`; test_addons.py compares the outputs."""

import sys

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa


def focal(inputs):
    """Cost of every pixel and slope of their sum, for each (alpha, gamma); alpha 0 stands for none."""
    truth = tf.constant(inputs["truth"], tf.float32)
    logits, probability = tf.constant(inputs["logits"]), tf.constant(inputs["probability"])
    costs, slopes, from_probability = [], [], []
    for alpha, gamma in inputs["alpha_gamma"].tolist():
        loss = tfa.losses.SigmoidFocalCrossEntropy(from_logits=True, alpha=alpha, gamma=gamma)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            cost = loss(truth, logits)
        costs.append(cost)
        slopes.append(tape.gradient(cost, logits))
        from_probability.append(tfa.losses.SigmoidFocalCrossEntropy(alpha=alpha, gamma=gamma)(truth, probability))
    return {"focal": costs, "focal_slope": slopes, "focal_from_probability": from_probability}


def mean_filter(inputs):
    return {name + "_filtered": tfa.image.mean_filter2d(inputs[name]) for name in ("image_float", "image_uint8")}


def f1(inputs):
    """Streamed over the batches of (truth, probability), and for an empty mask that is predicted empty."""
    metric = tfa.metrics.F1Score(num_classes=1, average="micro", threshold=0.5)
    for truth, probability in zip(inputs["truth"], inputs["probability"], strict=True):
        metric.update_state(truth.reshape(-1, 1), probability.reshape(-1, 1))
    empty = tfa.metrics.F1Score(num_classes=1, average="micro", threshold=0.5)
    empty.update_state(np.zeros((4, 1)), np.zeros((4, 1)))
    return {"f1": metric.result(), "f1_empty": empty.result()}


def main(source, target):
    with np.load(source) as inputs:
        results = {**focal(inputs), **mean_filter(inputs), **f1(inputs)}
    np.savez(target, **{name: np.asarray(value) for name, value in results.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
