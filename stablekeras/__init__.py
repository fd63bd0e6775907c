"""Training runs that never die of NaN, for Keras 3 on TensorFlow."""

__version__ = "0.1.0"
