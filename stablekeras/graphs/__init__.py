"""Reading and writing TensorFlow graphs: the one room with private APIs."""
