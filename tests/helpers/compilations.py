"""What XLA compiles: counting it, and optimising it where tests do not."""

import contextlib

import jax

COMPILED = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def compilations():
    """The names of the functions that are compiled inside, a list that fills as they are.

    Those that the persistent cache or this process holds already are not among the latter: count
    in a fresh process what a first call takes.
    """
    names, active = [], [True]

    def listen(event, _, fun_name="", **__):
        if event == COMPILED and active:
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        active.clear()


@contextlib.contextmanager
def optimised():
    """What is compiled inside has LLVM's optimisations, which `conftest` switches off."""
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.config.update(name, False)
    try:
        yield
    finally:
        jax.config.update(name, before)
