"""Counting what XLA compiles."""

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
