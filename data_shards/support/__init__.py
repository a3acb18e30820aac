"""What every floor of the house stands on: errors, files, configuration documents, progress lines."""
