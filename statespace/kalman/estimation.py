def fit(*a): pass
