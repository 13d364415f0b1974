"""How fast, beside other codes and what bounds them."""
