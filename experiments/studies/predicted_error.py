"""What theory predicts of a linear potential's defect simulation, as forms in its coefficients.

    f = X c - F                            forces that the coefficients c leave at ubar
    ||D(uhat - ubar)|| = ||D H^+ f||       geometry error, Å
    eta = (f . K^+ f)^(1/2)                negative norm of the forces, eV/Å
    E_f error = row . c - E_f - f . H^+ f / 2

to first order, ubar the reference's geometry and F what forces its relaxation left there, X the
force rows of the basis. H is the *reference's* Hessian at ubar: the surrogate's own differs by as
much as the forces do, which changes the geometry to second order only. H does not know c, so all
three are quadratic forms, made once by one solve with H per basis function; after that the
predicted error of any weights of the loss costs products with K-by-K triangles and can be
differentiated.

    forms = error_forms(config, m=5)            # a cell of 5 cubes per side
    predicted(forms, coefficients).geometry     # Å; pure: jit, vmap, grad

What it takes from the reference is its geometry, its Hessian and its formation energy in that cell,
and nothing else.
"""

from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies import defect_fits
from experiments.studies.defect_fits import bulk, reference_simulation
from lprjax.atoms.graphs import Graph, build_graph, moved
from lprjax.defects.defect import Defect
from lprjax.numerics.krylov import conjugate_gradients
from lprjax.potentials.observables import total_energy
from lprjax.potentials.potential import Potential, as_argument
from lprjax.regression.factors import Factor, compress
from lprjax.regression.rows import design_rows

TOLERANCE = 1e-10  # of a solve with H, in the negative norm
MAX_ITERATIONS = 500
BATCH = 16  # solves at a time


class Forms(NamedTuple):
    """Squared errors |R c - t|^2 + residual of coefficients c, in one cell of one defect."""

    geometry: Factor  # ||D H^+ f||^2, Å^2
    negative: Factor  # eta^2, (eV/Å)^2
    work: Factor  # f . H^+ f, eV
    energy_row: jax.Array  # (K,), of the formation energy at ubar
    energy: float  # eV, the reference's formation energy
    converged: bool  # every solve with H, and the relaxation to ubar; H is positive on the forces


class Errors(NamedTuple):
    """Predicted errors of one set of coefficients."""

    geometry: jax.Array  # Å
    energy: jax.Array  # eV, of the formation energy, signed
    eta: jax.Array  # eV/Å
    work: jax.Array  # eV, f . H^+ f; half of it is what relaxing gains


def predicted(forms: Forms, coefficients) -> Errors:
    """The first-order errors of a linear potential; pure, and differentiable away from zero.

    coefficients: (K,) eV.
    """

    def square(factor):
        inside = factor.triangular @ coefficients - factor.target
        return jnp.sum(inside**2) + factor.residual

    work = square(forms.work)
    return Errors(
        geometry=jnp.sqrt(square(forms.geometry)),
        energy=forms.energy_row @ coefficients - forms.energy - 0.5 * work,
        eta=jnp.sqrt(square(forms.negative)),
        work=work,
    )


def error_forms(config: defect_fits.Config, m: int) -> Forms:
    """The forms of the configuration's defect and basis, in a cell of m cubes per side.

    Raises ValueError for a material there is not, or a defect that its lattice does not have.
    """
    names = ("material", "defect", "order", "degree", "r_cut")
    return _forms(defect_fits.Config(**{name: getattr(config, name) for name in names}), m)


@lru_cache(maxsize=8)
def _forms(config, m) -> Forms:
    potential, spec = config.crystal.potential, config.spec
    defect, displacement, formation_energy, settled = reference_simulation(config, m)
    structure = defect.displaced(displacement)
    n = structure.n_atoms
    rows = design_rows(spec, build_graph(structure, spec.r_cut), ("energy", "forces"))
    graph = build_graph(structure, potential.r_cut)
    left = -jax.grad(partial(_energy, potential, graph))(jnp.zeros((n, 3)))
    basis, triangle = _orthonormal(rows.forces[:n].reshape(3 * n, -1), left.reshape(-1))
    columns = basis.T.reshape(-1, n, 3)
    moves, by_lattice, solved = _responses(
        as_argument(potential, "potential"), graph, defect, columns
    )
    gram = lambda a, b: jnp.einsum("pia,qia->pq", a, b)  # noqa: E731
    stiff = jax.vmap(lambda v: defect.on_atoms(defect.lattice.apply(defect.on_sites(v))))(moves)
    return Forms(
        geometry=_factor(gram(moves, stiff), triangle),
        negative=_factor(gram(columns, by_lattice), triangle),
        work=_factor(gram(columns, moves), triangle),
        energy_row=rows.energy - n * jnp.asarray(bulk(config).row),
        energy=formation_energy,
        converged=bool(settled and jnp.all(solved)),
    )


def _orthonormal(rows, targets):
    """Q (3 n, q) and R (q, K + 1) with Q R = [X | F], so that f = Q R [c; -1].

    The forces of good coefficients are small where the columns of X are large. What a solve with a
    column of Q gets wrong is small relative to f itself; a solve with one of X would be wrong
    relative to X.
    """
    return jnp.linalg.qr(jnp.concatenate([rows, targets[:, None]], axis=1))


def _factor(gram, triangle) -> Factor:
    """y^T G y = |R c - t|^2 + residual, for y = triangle [c; -1] and G semidefinite."""
    values, modes = np.linalg.eigh(np.asarray(0.5 * (gram + gram.T)))
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * modes.T
    rows = root @ np.asarray(triangle)
    return compress(rows[:, :-1], rows[:, -1])


def _energy(potential, graph, moves):
    n = len(moves)
    return total_energy(potential, moved(graph, graph.positions.at[:n].add(moves)))


@jax.jit
def _responses(potential: Potential, graph: Graph, defect: Defect, forces):
    """H^+ f and K^+ f of many f, each (q, n, 3), and which of the solves with H went well."""
    gradient = jax.grad(partial(_energy, potential, graph))
    _, hessian = jax.linearize(gradient, jnp.zeros(forces.shape[1:]))
    balanced = lambda v: v - jnp.mean(v, axis=0, keepdims=True)  # noqa: E731

    def solve(f):
        apply = lambda v: balanced(hessian(balanced(v)))  # noqa: E731
        inverse = lambda f: balanced(defect.preconditioner(balanced(f)))  # noqa: E731
        found = conjugate_gradients(apply, inverse, balanced(f), TOLERANCE, MAX_ITERATIONS)
        return found.solution, inverse(f), found.converged

    batches = jnp.pad(forces, ((0, -len(forces) % BATCH), (0, 0), (0, 0)))  # zeros cost no turn
    batches = batches.reshape(-1, BATCH, *forces.shape[1:])
    found = jax.lax.map(jax.vmap(solve), batches)
    return tuple(x.reshape(-1, *x.shape[2:])[: len(forces)] for x in found)
