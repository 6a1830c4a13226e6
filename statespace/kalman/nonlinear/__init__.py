"""Filters and smoothers for models whose dynamics or observation are not linear.

Above: user code. Below: NumPy, or torch where Jacobians are taken by automatic differentiation.
"""

__all__: list[str] = []
