"""Multiple-instance learning: pooling the scores of the instances of a bag, terms on them, and mi-SVM.

Shape suffixes: B bags, H instances of a bag (padded), O outputs, D channels.
"""
