"""The homogeneous lattice: elasticity, phonons, the norm of its strains."""
