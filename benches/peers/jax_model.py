"""The workloads in JAX, shared by the CPU and the GPU peer. Arrays live on JAX's default device."""

from __future__ import annotations

from common import Batches, Runner, cycled, inference_inputs


def build(case, data, parameters, options) -> Runner:
    import jax
    import jax.numpy as jnp

    workload = case.workload

    def half(layers, rows):
        for at, (weight, bias) in enumerate(layers):
            if at > 0:
                rows = jax.nn.relu(rows)
            rows = rows @ weight + bias
        return rows

    # Weights as [in, out], so that the forward product needs no transpose.
    weights = {
        name: [(jnp.asarray(weight.T), jnp.asarray(bias)) for weight, bias in layers]
        for name, layers in parameters.items()
    }
    if case.mode != "train":
        inputs = [jnp.asarray(rows) for rows in inference_inputs(case, data)]

        @jax.jit
        def infer(rows):
            code = half(weights["encoder"], rows)
            return half(weights["decoder"], code) if case.mode == "reconstruct" else code

        return Runner(cycled(lambda turn: infer(inputs[turn]).block_until_ready(), len(inputs)), settings=["jit"])

    rows = jnp.asarray(data.rows)
    batches = Batches(case, len(data.rows))

    def loss_of(weights, x):
        code = half(weights["encoder"], x)
        residual = half(weights["decoder"], code) - x
        if workload.objective == "mse_mean":
            return jnp.mean(residual**2)
        return (0.5 * jnp.sum(residual**2) + 0.5 * workload.beta * jnp.sum(code**2)) / x.shape[0]

    def step(state, index):
        weights, moments1, moments2, count = state
        loss, gradients = jax.value_and_grad(loss_of)(weights, rows[index])
        if workload.decoder_l2:
            gradients["decoder"] = jax.tree.map(
                lambda g, w: g + workload.decoder_l2 * w, gradients["decoder"], weights["decoder"]
            )
        count += 1.0
        correction1, correction2 = 1.0 - 0.9**count, 1.0 - 0.999**count
        moments1 = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments1, gradients)
        moments2 = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, moments2, gradients)
        weights = jax.tree.map(
            lambda w, m, v: (
                w - workload.learning_rate * (m / correction1) / (jnp.sqrt(v / correction2) + workload.adam_epsilon)
            ),
            weights,
            moments1,
            moments2,
        )
        return (weights, moments1, moments2, count), loss

    def epoch(state, full, short):
        state, losses = jax.lax.scan(step, state, full)
        if batches.short:
            state, last = step(state, short)
            losses = jnp.append(losses, last)
        return state, jnp.mean(losses)

    epoch = jax.jit(epoch, donate_argnums=0)
    zeros = jax.tree.map(jnp.zeros_like, weights)
    state = (weights, zeros, jax.tree.map(jnp.copy, zeros), jnp.zeros(()))
    mean_loss = jnp.zeros(())

    def span() -> int:
        nonlocal state, mean_loss
        order = batches.next().astype("int32")
        whole = batches.full * case.batch
        state, mean_loss = epoch(state, order[:whole].reshape(batches.full, -1), order[whole:])
        mean_loss.block_until_ready()
        return batches.steps

    return Runner(span, lambda: float(mean_loss), ["jit", "lax.scan over the epoch", "donated state"])
