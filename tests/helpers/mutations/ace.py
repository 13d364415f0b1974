"""Wrong formulas in lprjax/ace."""

from tests.helpers.mutations.table import wrong

MUTATIONS = (
    *wrong(
        "ace/angular.py",
        "ace/test_angular",
        {
            "sign = (-1) ** (p // 2)": "sign = (-1) ** p",
            "sqrt(2) if m else 1.0": "sqrt(2) if m > 0 else 1.0",
            "factorial(l - mu) / factorial(l + mu)": "factorial(l + mu) / factorial(l - mu)",
            "(-1) ** k * comb(l, k)": "comb(l, k)",
            "(p % 2 == 1) != (m < 0)": "(p % 2 == 1) != (m > 0)",
            "+ key[axis] * value": "+ value",
            "return found[0], found[1:]": "return found[0], -found[1:]",
        },
    ),
    *wrong(
        "ace/radial.py",
        "ace/test_radial ace/test_potential",
        {
            "a = (-2 * q + p * (-2 + 4 * q))": "a = (-2 * q + p * (-2 + 2 * q))",
            "s ** (q - p)": "s**q",
            "(c - 1) * (alpha**2 - beta**2) / scale": "(c - 1) * (beta**2 - alpha**2) / scale",
            "return p * e[None], p_slope * (e * t_slope)[None] + p * e_slope[None]": (
                "return p * e[None], p_slope * (e * t_slope)[None]"
            ),
            "1.0 - 2.0 * (agnesi(inside": "1.0 - (agnesi(inside",
            "r0 / r * (1.0": "(1.0",
            "_with_slopes(parts, r, 2 * power, 2 * CORE_POWER, n_max)": (
                "_with_slopes(parts, r, power, 2 * CORE_POWER, n_max)"
            ),
            "_with_slopes(parts, r, 2 * power, 0, n_max)": "_with_slopes(parts, r, 2 * power - 1, 0, n_max)",
            "(1.0 - t) ** power * (1.0 + t) ** CORE_POWER": "(1.0 - t) ** (power - 1) * (1.0 + t) ** CORE_POWER",
            "jnp.minimum(r, r_cut) / r_cut) ** power": "jnp.minimum(r, r_cut) / r_cut) ** (power - 1)",
            "MANY_BODY_AGNESI = (2, 4)": "MANY_BODY_AGNESI = (2, 3)",
            "PAIR_AGNESI = (1, 3)": "PAIR_AGNESI = (1, 4)",
            "- log(2 * n + alpha + beta + 1)": "- log(2 * n + alpha + beta)",
            "CORE_POWER = 2": "CORE_POWER = 1",
        },
    ),
    *wrong(
        "ace/coupling.py",
        "ace/test_coupling ace/test_potential",
        {
            "f(j1 + m1) * f(j1 - m1)": "f(j1 + m1) * f(j1 + m1)",
            "(-1) ** k\n": "1.0\n",
            "= -1j * sign / sqrt(2), 1j / sqrt(2)": "= 1j * sign / sqrt(2), 1j / sqrt(2)",
            "sign / sqrt(2), 1 / sqrt(2)": "1 / sqrt(2), 1 / sqrt(2)",
            "c.imag if (l1 + l2 + l3) % 2 else c.real": "c.real",
            "if abs(m1 + m2) <= l3": "if abs(m1 + m2) < l3",
            "range(max(abs(l1 - l2), abs(l3 - l4)),": "range(max(abs(l1 - l2), abs(l3 - l4)) + 1,",
            "u1.conj(), u2.conj(), u3, c)": "u1, u2.conj(), u3, c)",
            "rank = int(np.sum(sigma > _RANK))": "rank = int(np.sum(sigma > 0))",
            "rest = column - chosen.T @ (chosen @ column)": "rest = column",
        },
    ),
    *wrong(
        "ace/sums_of_products.py",
        "ace/test_adjoint ace/test_potential",
        {
            "b.values[:, lane, None] * product": "product",
            "first = np.cumsum(counts) - counts": "first = np.cumsum(counts) - 1",
            "order[np.concatenate(members)] = np.arange(n_entries)": "order[:] = np.concatenate(members)",
        },
    ),
    *wrong(
        "ace/basis.py",
        "ace/test_potential ace/test_rows",
        {
            "l * l + l + m]": "l * l + l - m]",
            "grid[z, n - 1,": "grid[z, n - 2,",
            "x: jnp.where(edge_mask[None], x, 0.0)": "x: x",
            "tuple(slope * tangents[0][None] for slope in slopes)": "tuple(slope for slope in slopes)",
            "graph.species[graph.neighbours])": "jnp.broadcast_to(graph.species[:, None], graph.neighbours.shape))",
            "jnp.concatenate([t.sums(base), pairs, constant])": "jnp.concatenate([t.sums(base), pairs, 2.0 * constant])",
            "jnp.sqrt(jnp.sum(vectors**2, axis=0))\n    radial, pair": (
                "jnp.sqrt(jnp.sum(vectors[:2] ** 2, axis=0))\n    radial, pair"
            ),
        },
    ),
    *wrong(
        "ace/adjoint.py",
        "ace/test_adjoint ace/test_rows",
        {
            "(offset + (z * n_max + n - 1) * n_q": "(offset + (z * n_max + n - 1) * n_max",
            "m[terms] + degree, product": "degree - m[terms], product",
            "real = taken < t.n_channels": "real = taken <= t.n_channels",
            "np.sum(sigma > RANK * sigma[0])": "np.sum(sigma > 0.5 * sigma[0])",
            "return basis, rows @ basis.T": "return basis, rows @ basis.T / sigma[0]",
            "table[z, n - 1, m + block.l] = own": "table[z, n - 1, block.l - m] = own",
        },
    ),
    *wrong(
        "ace/potential.py",
        "ace/test_potential",
        {
            "c[t.term_function] * t.term_value": "c[t.term_function]",
            "len(right)).T @ left) * right": "len(right)).T @ left) + right",
            "pair @ pairs + jnp.sum(constant)": "pair @ pairs",
            "by_centre + self.reference_energies[None, :]": "by_centre - self.reference_energies[None, :]",
            "base[right[:, 0]] * base[right[:, 1]]": "base[right[:, 0]] * base[right[:, 0]]",
            "[e0[e] for e in spec.elements]": "[e0[e] for e in sorted(spec.elements)]",
        },
    ),
    *wrong(
        "ace/rows.py",
        "ace/test_rows regression/test_rows",
        {
            "(-1.0) ** block.l * q_others": "q_others",
            "contract(slopes, reflected + q_own[:, :, None])": "contract(slopes, reflected - q_own[:, :, None])",
            "(gradients - radial_part) / r[None, None]": "(gradients - radial_part)",
            "across = (gradients - radial_part)": "across = gradients",
            "moments = -jnp.einsum": "moments = jnp.einsum",
            "0.5 * (moments[:, :, ROWS, COLUMNS] + moments[:, :, COLUMNS, ROWS])": "moments[:, :, ROWS, COLUMNS]",
            ".at[-1].divide(order[None, :])": "",
            ".at[:, atom].add(-jnp.sum(near, axis=1))": ".at[:, atom].add(jnp.sum(near, axis=1))",
            "        return -change\n": "        return change\n",
            "slopes = slopes._replace(pair=jnp.zeros_like(slopes.pair))": "",
            '"cxnm,cmq->cxnq", of_species.sum(-1)': '"cxnm,cmq->cxnq", of_species[..., 0]',
            '"ctxnq,cz->cxtznq", sites': '"ctxnq,cz->cxztnq", sites',
            "by_species[:, :, :, None] * atoms.own[:, None, None, :, None]": "by_species[:, :, :, None]",
            "jnp.minimum(number * size, len(vectors) - size)": "jnp.minimum(number * size, len(vectors) - size - 1)",
            "(jnp.sum(graph.atom_mask) + size - 1) // size": "jnp.sum(graph.atom_mask) // size",
            "jnp.zeros((7, own.shape[1])).at[-1].set(jnp.sum(own, axis=0))": (
                "jnp.zeros((7, own.shape[1])).at[-1].set(1.0)"
            ),
            '"ckb,czk->czbk", atoms.edges, atoms.others': '"ckb,czk->czbk", 0.5 * atoms.edges, atoms.others',
        },
    ),
    *wrong(
        "ace/spec.py",
        "ace/test_spec ace/test_potential",
        {
            "L_WEIGHT = 1.5": "L_WEIGHT = 1.0",
            "if channels[c].degree <= left": "if channels[c].degree < left",
            "sum(f.degree**power for f in g.factors)": "max(f.degree**power for f in g.factors)",
            "[n**power for _": "[n for _",
            'order == v for v in range(1': 'order == v + 1 for v in range(1',
            "block == z for z, element": "block != z for z, element",
            "np.array([z in neighbours for neighbours in species])": "np.array([{z} == set(neighbours) for neighbours in species])",
        },
    ),
)
