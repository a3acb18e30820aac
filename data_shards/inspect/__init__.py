"""A data set looked at: its survey, its checks, a sheet of its images."""
