"""Keras on TensorFlow: `Model.fit`, the way most tutorials train an autoencoder."""

from __future__ import annotations

import os

from common import Batches, CannotRun, Runner, cycled, inference_inputs, main, prepare_threads

THREADS = prepare_threads()
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def version() -> str:
    import keras
    import tensorflow

    return f"{keras.__version__} (tensorflow {tensorflow.__version__})"


def build(case, data, parameters, options) -> Runner:
    import tensorflow

    # The thread pools are made by the first operation and cannot change later.
    if tensorflow.config.threading.get_intra_op_parallelism_threads() != options.threads:
        tensorflow.config.threading.set_intra_op_parallelism_threads(options.threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(options.threads)
    import keras

    if case.precision != "f32":
        raise CannotRun("measured in f32 only")
    workload = case.workload

    def half(tensor, layers, name, decay):
        regularizer = keras.regularizers.L2(decay / 2) if decay else None
        for at, (weight, bias) in enumerate(layers):
            last = at + 1 == len(layers)
            tensor = keras.layers.Dense(
                weight.shape[0],
                activation=None if last else "relu",
                kernel_initializer=keras.initializers.Constant(weight.T),
                bias_initializer=keras.initializers.Constant(bias),
                kernel_regularizer=regularizer,
                bias_regularizer=regularizer,
                name=name if last else None,
            )(tensor)
        return tensor

    rows = keras.Input((workload.width,))
    code = half(rows, parameters["encoder"], "code", 0.0)
    output = half(code, parameters["decoder"], "output", workload.decoder_l2)
    if case.mode != "train":
        model = keras.Model(rows, output if case.mode == "reconstruct" else code)
        inputs = [tensorflow.constant(batch) for batch in inference_inputs(case, data)]
        infer = tensorflow.function(model, input_signature=[tensorflow.TensorSpec(inputs[0].shape)], autograph=False)
        return Runner(cycled(lambda turn: infer(inputs[turn]).numpy(), len(inputs)), settings=["tf.function"])

    batches = Batches(case, len(data.rows))
    adam = keras.optimizers.Adam(workload.learning_rate, epsilon=workload.adam_epsilon)
    settings = ["fit", "steps_per_execution"]
    if workload.objective == "mse_mean":
        model = keras.Model(rows, output)
        model.compile(adam, "mse", steps_per_execution=batches.steps)
    else:
        # The second output is fitted to zero: that is the prior term.
        def half_square(target, prediction):
            return 0.5 * keras.ops.sum(keras.ops.square(prediction - target), axis=-1)

        model = keras.Model(rows, [output, code])
        model.compile(
            adam,
            [half_square, half_square],
            loss_weights=[1.0, workload.beta],
            steps_per_execution=batches.steps,
        )
    losses = {}

    def span() -> int:
        nonlocal losses
        index = batches.next()
        x = data.rows[index]
        y = x if workload.objective == "mse_mean" else [x, zeros[: len(x)]]
        losses = model.fit(x, y, batch_size=case.batch, epochs=1, shuffle=False, verbose=0).history
        return batches.steps

    import numpy as np

    zeros = np.zeros((case.batch * batches.full, workload.encoder[-1]), np.float32)

    def loss() -> float:
        if workload.objective == "mse_mean":
            return losses["loss"][-1]
        return losses["output_loss"][-1] + workload.beta * losses["code_loss"][-1]

    return Runner(span, loss, settings)


if __name__ == "__main__":
    main("keras", version, build)
