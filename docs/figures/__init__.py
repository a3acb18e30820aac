"""The drawings of the documents; ``python -m docs.figures`` draws them anew."""
