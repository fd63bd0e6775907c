"""Every public name of `keras.losses`, right to the last bits."""
