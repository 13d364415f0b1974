"""Site by site in blocks; conjugate gradients and Lanczos beside a known norm."""
