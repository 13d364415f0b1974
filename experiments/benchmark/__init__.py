"""Speed of every path, beside other codes and the arithmetic that bounds it."""
