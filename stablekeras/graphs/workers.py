"""The processes of one training, and a word that all of them hear."""

import numpy as np
import tensorflow as tf

__all__ = ["Workers", "find_workers"]


def find_workers(strategy):
    """Returns the `Workers` of a strategy, `None` where it has one process.

    Args:
        strategy: A `tf.distribute.Strategy`, or `None`.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return None
    resolver = strategy.cluster_resolver
    spec = resolver.cluster_spec().as_dict() if resolver is not None else {}
    chiefs, others = len(spec.get("chief", ())), len(spec.get("worker", ()))
    if chiefs + others < 2:
        return None
    before = chiefs if resolver.task_type == "worker" else 0
    return Workers(strategy, resolver.task_id + before, chiefs + others)


class Workers:
    """The processes of a training; each makes one, at the same point of it.

    What is said goes through a collective of the training's own kind: it
    needs no folder that all of them see, and fails where a step would fail.
    It is traced here, once and by all: nothing that a process traces alone
    can come between.

    Args:
        strategy: The `tf.distribute.MultiWorkerMirroredStrategy`.
        rank: Number of this process, from 0, the chief.
        size: Number of processes.
    """

    def __init__(self, strategy, rank, size):
        self.rank = rank
        self.size = size
        self._replicas = strategy.num_replicas_in_sync // size

        def gather(words):
            context = tf.distribute.get_replica_context()
            place = context.replica_id_in_sync_group % self._replicas
            own = tf.where(tf.equal(place, 0), tf.size(words), 0)
            return context.all_gather(words[:own], axis=0)

        @tf.function(
            input_signature=[tf.TensorSpec((None,), tf.int32)],
            autograph=False,
        )
        def share(words):
            heard = strategy.run(gather, args=(words,))
            return strategy.experimental_local_results(heard)[0]

        self._share = share
        share.get_concrete_function()

    def worker_of(self, replica):
        """Returns the rank of the process that a replica belongs to."""
        return replica // self._replicas

    def share(self, message):
        """Gives each process what all of them said; waits for them.

        Args:
            message: `bytes`, empty of those who have nothing to say.

        Returns:
            `bytes`: the messages one after the other, by rank.
        """
        # Collectives carry no bytes: four of them make an integer, and each
        # message is led by its length. No message may be of no integers.
        padded = message + b"\0" * (-len(message) % 4)
        words = np.frombuffer(padded, np.int32)
        heard = self._share(
            tf.constant(np.concatenate([[len(message)], words]), tf.int32)
        ).numpy()
        said, place = [], 0
        while place < len(heard):
            length = int(heard[place])
            count = -(-length // 4)
            words = heard[place + 1 : place + 1 + count]
            said.append(words.tobytes()[:length])
            place += 1 + count
        return b"".join(said)
