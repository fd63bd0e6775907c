"""Settings shared by all tests: quiet TensorFlow, no accelerator."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

OTHER_BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow"


def pytest_ignore_collect(collection_path):
    """Keep out what must not be imported.

    Scripts that tests run in processes of their own are no tests. On another
    backend than TensorFlow only the modules marked `backends` may run, and
    the imports of the others may fail.
    """
    if collection_path.suffix != ".py":
        return None
    if not collection_path.name.startswith(("test_", "__init__")):
        return True
    if OTHER_BACKEND:
        text = collection_path.read_text(encoding="utf-8")
        return True if "mark.backends" not in text else None
    return None
