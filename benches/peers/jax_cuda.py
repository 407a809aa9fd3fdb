"""JAX on a GPU: jit, and a span of training steps as one `lax.scan`; f32 or tf32 products."""

from __future__ import annotations

from common import CannotRun, Runner, main, prepare_threads

THREADS = prepare_threads()


def version() -> str:
    import jax

    return jax.__version__


def build(case, data, parameters, options) -> Runner:
    import jax

    import jax_model

    precisions = {"f32": "float32", "tf32": "tensorfloat32"}
    if case.precision not in precisions:
        raise CannotRun("measured in f32 and tf32 only")
    try:
        device = jax.devices("gpu")[0]
    except RuntimeError as error:
        raise CannotRun("JAX finds no GPU") from error
    jax.config.update("jax_default_device", device)
    jax.config.update("jax_default_matmul_precision", precisions[case.precision])
    runner = jax_model.build(case, data, parameters, options)
    runner.settings.append(device.device_kind)
    return runner


if __name__ == "__main__":
    main("jax-cuda", version, build)
