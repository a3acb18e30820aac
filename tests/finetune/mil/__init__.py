"""Multiple-instance learning: poolings, terms, mi-SVM, and the head with what it says of instances."""
