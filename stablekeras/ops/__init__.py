"""Elementary stable maths in the conventions of `keras.ops`."""
