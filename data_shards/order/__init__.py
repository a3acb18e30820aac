"""Which sample comes when: a permutation, lanes of a mixture, and the plan of an epoch."""
