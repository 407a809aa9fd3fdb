"""JAX on the CPU: a span of training steps is one jitted `lax.scan` with donated state."""

from __future__ import annotations

import os

from common import CannotRun, Runner, main, prepare_threads

THREADS = prepare_threads()
os.environ["JAX_PLATFORMS"] = "cpu"


def version() -> str:
    import jax

    return jax.__version__


def build(case, data, parameters, options) -> Runner:
    import jax_model

    if case.precision != "f32":
        raise CannotRun("measured in f32 only")
    return jax_model.build(case, data, parameters, options)


if __name__ == "__main__":
    main("jax", version, build)
