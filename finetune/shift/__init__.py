"""Another site or scanner than that of the labels: what acquisition does to images, and by that to a classifier."""
